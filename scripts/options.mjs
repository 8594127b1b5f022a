/** Command-line options of the scripts: what is not among them is refused, with the usage, before anything is done. */
import { parseArgs } from "node:util";

/** `options` as for node:util's parseArgs; `names`: the positionals that are taken. */
export function optionsOf(usage, options, names = []) {
  try {
    const help = { type: "boolean", short: "h" };
    const { values, positionals } = parseArgs({ options: { ...options, help }, allowPositionals: true });
    if (values.help) end(usage, 0);
    const unknown = positionals.find((name) => !names.includes(name));
    if (unknown !== undefined)
      throw new Error(`expected ${names.join(" or ") || "options alone"}, received ${unknown}`);
    return { ...values, names: positionals };
  } catch (error) {
    end(`${error.message}\n${usage}`, 2);
  }
}

/** The number that was given, a whole one of at least 0, or `otherwise`. */
export function numberOf(text, otherwise) {
  if (text === undefined) return otherwise;
  if (/^\d+$/.test(text)) return Number(text);
  return end(`expected a whole number, received ${text}`, 2);
}

function end(text, code) {
  (code === 0 ? console.log : console.error)(text);
  process.exit(code);
}
