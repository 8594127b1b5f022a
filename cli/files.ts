/** Files as byte sources and sinks. Outputs appear under their name only when complete: a failure leaves nothing behind. */
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { InvalidArgument, InvalidFile } from "../core/errors.ts";
import type { ByteSink, ByteSource } from "../core/io/bytes.ts";

/** Opens a file for range reads. Throws InvalidFile when it cannot be read. */
export async function openFile(path: string): Promise<ByteSource> {
  let file: FileHandle;
  try {
    if ((await stat(path)).isDirectory()) throw new Error("EISDIR: it is a directory");
    file = await open(path, "r");
  } catch (error) {
    const received = reason(error);
    throw new InvalidFile({
      name: "input",
      expected: "a readable file",
      received,
      where: { file: path },
      remedy: "check the path",
    });
  }
  const { size } = await file.stat();
  return {
    name: path,
    size,
    read: async (offset, length) => {
      const bytes = new Uint8Array(length);
      let done = 0;
      while (done < length) {
        const { bytesRead } = await file.read(bytes, done, Math.min(length - done, 2 ** 30), offset + done);
        if (bytesRead === 0) {
          throw new InvalidFile({
            name: "file size",
            expected: `${length} bytes from offset ${offset}`,
            received: `${done}`,
            where: { file: path, offset },
            remedy: "the file is truncated; write or copy it again",
          });
        }
        done += bytesRead;
      }
      return bytes;
    },
    close: () => file.close(),
  };
}

/** A file that appears under `path` on commit. Throws InvalidArgument when it cannot be written. */
export async function createFile(path: string): Promise<ByteSink> {
  const partial = `${path}.${process.pid}.partial`;
  const refuse = (error: unknown) =>
    new InvalidArgument({
      name: "output",
      expected: "a writable path",
      received: reason(error),
      where: { file: path },
      remedy: "choose another path with -o",
    });
  const isDirectory = await stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
  if (isDirectory) throw refuse(new Error("EISDIR: it is a directory"));
  const file = await open(partial, "w").catch((error) => {
    throw refuse(error);
  });
  return {
    name: path,
    write: async (bytes) => {
      try {
        for (let done = 0; done < bytes.byteLength; ) {
          done += (await file.write(bytes, done, Math.min(bytes.byteLength - done, 2 ** 30))).bytesWritten;
        }
      } catch (error) {
        throw refuse(error);
      }
    },
    commit: async () => {
      await file.close();
      await rename(partial, path).catch(async (error) => {
        await rm(partial, { force: true });
        throw refuse(error);
      });
    },
    abort: async () => {
      await file.close().catch(() => {});
      await rm(partial, { force: true });
    },
  };
}

/** Runs `write` and commits the file; on any error nothing is left under the name. */
export async function writeFileWith(path: string, write: (sink: ByteSink) => Promise<void>): Promise<void> {
  const sink = await createFile(path);
  try {
    await write(sink);
    await sink.commit();
  } catch (error) {
    await sink.abort();
    throw error;
  }
}

function reason(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split(",")[0];
}
