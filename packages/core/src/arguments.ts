/**
 * Checks of arguments that users pass, for packages that build on the core: see `@tiedlora/kernels/arguments`.
 * @module
 */
export * from "@tiedlora/kernels/arguments";
