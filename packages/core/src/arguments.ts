/**
 * Checks of what users hand over, for packages above: see `@tiedlora/kernels/arguments`.
 * @module
 */
export * from "@tiedlora/kernels/arguments";
