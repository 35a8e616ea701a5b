/** Styles, which VitePress bundles. */
declare module "*.css";
