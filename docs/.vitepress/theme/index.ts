/** VitePress's own theme, with some rules for sources. */
import DefaultTheme from "vitepress/theme";
// oxlint-disable-next-line import/no-unassigned-import -- VitePress bundles it
import "./style.css";

export default DefaultTheme;
