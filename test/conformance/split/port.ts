import { createServer } from "node:net";

/** Below the ports that the kernel gives to outgoing connections, and apart from those of other test processes. */
let next = 12_000 + (process.pid % 600) * 30;

/** A port of 127.0.0.1 that nobody listens on. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = next;
    next = next >= 31_900 ? 12_000 : next + 1;
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}
