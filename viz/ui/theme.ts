import type { ViewState } from "../model/state.ts";
import { DARK, LIGHT, type Theme } from "../views/theme.ts";

export const systemDark = matchMedia("(prefers-color-scheme: dark)");

export function themeOf({ theme }: ViewState): Theme {
  return theme === "dark" || (theme === "auto" && systemDark.matches) ? DARK : LIGHT;
}

export function nextTheme({ theme }: ViewState): ViewState["theme"] {
  const next = { auto: "light", light: "dark", dark: "auto" } as const;
  return next[theme];
}

/** Hands the colours to the style sheet. */
export function applyTheme(theme: Theme): void {
  const { style } = document.documentElement;
  document.documentElement.dataset.theme = theme.name;
  style.colorScheme = theme.name;
  const names = {
    bg: "bg",
    panel: "panel",
    fg: "fg",
    muted: "muted",
    grid: "grid",
    accent: "accent",
    onAccent: "on-accent",
    warning: "warning",
  } as const;
  for (const [key, name] of Object.entries(names))
    style.setProperty(`--${name}`, String(theme[key as keyof typeof names]));
}
