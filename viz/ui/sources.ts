import { InvalidFile } from "../../core/errors.ts";
import { type ByteSource, checkRange, memorySource } from "../../core/io/bytes.ts";

/** A file the user dropped or chose: ranges are read from disk when they are needed. */
export function blobSource(blob: Blob, name: string): ByteSource {
  return {
    name,
    size: blob.size,
    read: async (offset, length) => {
      checkRange(name, blob.size, offset, length);
      return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
    },
    close: async () => {},
  };
}

/**
 * A file behind a URL, read by ranges where the server has them, else fetched whole. Rejects with InvalidFile saying what
 * the server answered.
 */
export async function urlSource(
  url: string,
  options: { readonly signal?: AbortSignal; readonly progress?: (fraction: number) => void } = {},
): Promise<ByteSource> {
  const signal = options.signal ? { signal: options.signal } : {};
  const name = decodeURIComponent(url.split("/").at(-1) ?? url);
  const failed = (received: string, cause?: unknown) =>
    new InvalidFile(
      {
        name: "url",
        expected: "a file the page may read",
        received,
        where: { file: url },
        remedy: "open the file from disk, or serve it with CORS",
      },
      { cause },
    );
  const get = async (init: RequestInit) => {
    try {
      return await fetch(url, { ...init, ...signal });
    } catch (error) {
      options.signal?.throwIfAborted();
      throw failed(error instanceof Error ? error.message : String(error), error);
    }
  };
  const first = await get({ headers: { Range: "bytes=0-0" } });
  const size = Number(/\/(\d+)$/.exec(first.headers.get("content-range") ?? "")?.[1]);
  if (first.status === 206 && Number.isSafeInteger(size)) {
    await first.body?.cancel();
    return {
      name,
      size,
      read: async (offset, length) => {
        checkRange(name, size, offset, length);
        if (length === 0) return new Uint8Array(0);
        const part = await get({ headers: { Range: `bytes=${offset}-${offset + length - 1}` } });
        const bytes = new Uint8Array(await part.arrayBuffer());
        if (part.status !== 206 || bytes.length !== length)
          throw failed(`status ${part.status}, ${bytes.length} bytes`);
        return bytes;
      },
      close: async () => {},
    };
  }
  if (first.status !== 200) throw failed(`status ${first.status}`);
  return memorySource(await wholeBody(first, options.progress), name);
}

async function wholeBody(response: Response, progress?: (fraction: number) => void): Promise<Uint8Array> {
  const total = Number(response.headers.get("content-length") ?? 0);
  const parts: Uint8Array[] = [];
  let received = 0;
  const reader = response.body?.getReader();
  for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
    parts.push(part.value);
    received += part.value.length;
    if (total > 0) progress?.(received / total);
  }
  const bytes = new Uint8Array(received);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
