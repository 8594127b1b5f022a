/**
 * UTF-8 between bytes and strings. The encoder and decoder are globals of Node, browsers and workers alike, but belong to
 * neither ES2023 nor core's type environment: declared here, once, with what is used.
 */
declare const TextDecoder: new (
  label: "utf-8",
  options: { fatal: boolean; ignoreBOM?: boolean },
) => { decode(bytes: Uint8Array, options?: { stream: boolean }): string };
declare const TextEncoder: new () => { encode(text: string): Uint8Array };

/** Throws TypeError on bytes that are not UTF-8. */
export function decodeText(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
}

export function encodeText(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
