/** The two builds of the viewer, hashed files and one page (`--mode single`); scripts/build-viz.mjs says where they go. */
import { defineConfig, type Plugin } from "vite";

export default defineConfig(({ mode }) => {
  const single = mode === "single";
  return {
    base: "./",
    publicDir: false,
    build: {
      emptyOutDir: true,
      target: "es2022",
      modulePreload: { polyfill: false },
      assetsInlineLimit: single ? Number.MAX_SAFE_INTEGER : 0,
      cssCodeSplit: !single,
      rollupOptions: single ? { output: { codeSplitting: false } } : {},
    },
    plugins: [leanShaders(), ...(single ? [singleFile()] : [])],
  };
});

/** WGSL without comments and indentation: about a third of its size in the page. */
function leanShaders(): Plugin {
  return {
    name: "fused-a2a-lean-shaders",
    enforce: "post",
    transform(code, id) {
      if (!/\.wgsl\?raw$/.test(id)) return null;
      const text: string = JSON.parse(code.slice(code.indexOf('"'), code.lastIndexOf('"') + 1));
      const lean = text
        .replace(/\/\/.*$/gm, "")
        .replace(/\s+/g, " ")
        .replace(/ ?([;,{}()]) ?/g, "$1");
      return { code: `export default ${JSON.stringify(lean)}`, map: null };
    },
  };
}

/** Puts script and style into the page, which becomes viewer.html, and drops the files they came from. */
function singleFile(): Plugin {
  return {
    name: "fused-a2a-single-file",
    enforce: "post",
    generateBundle(_options, bundle) {
      const page = bundle["index.html"];
      if (page?.type !== "asset") throw new Error("the build made no index.html");
      let html = String(page.source);
      for (const [name, file] of Object.entries(bundle)) {
        const tag = (pattern: string) => new RegExp(pattern.replace("NAME", name.replaceAll(".", "\\.")), "g");
        if (file.type === "chunk") {
          // Vite fills this in for files it writes later: the list of files to preload, of which there are none.
          const code = file.code.replaceAll("__VITE_PRELOAD__", "void 0").replaceAll("</script", "<\\/script");
          const script = `<script type="module">${code}</script>`;
          html = html
            .replace(tag('\\s*<script[^>]*src="\\./NAME"[^>]*></script>'), "")
            .replace("</body>", () => `${script}\n</body>`);
        } else if (name.endsWith(".css")) {
          html = html.replace(tag('<link[^>]*href="\\./NAME"[^>]*>'), () => `<style>${file.source}</style>`);
        } else if (name !== "index.html") continue;
        delete bundle[name];
      }
      this.emitFile({ type: "asset", fileName: "viewer.html", source: html });
    },
  };
}
