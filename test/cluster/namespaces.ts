/** Hosts as network namespaces of this machine, joined by one veth pair each time a test asks. */
import { execFileSync } from "node:child_process";

const PREFIX = "fa2a";

function ip(...args: string[]): string {
  return execFileSync("ip", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], timeout: 10_000 });
}

export interface Host {
  readonly address: string;
  /** The veth's end in this namespace. */
  readonly device: string;
  /** Puts a program there. */
  readonly prefix: readonly string[];
  setLink(state: "up" | "down"): void;
}

let made = 0;
const namespaces = new Set<string>();

/** Two hosts, 10.77.X.1 and 10.77.X.2. Throws when the machine does not allow it; nothing is left then. */
export function makeHosts(): readonly [Host, Host] {
  const id = `${process.pid}-${made++}`;
  const names = ["a", "b"].map((end) => `${PREFIX}-${id}-${end}`);
  // At most 15 characters; they may not meet those of another test process before they are in their namespaces.
  const devices = ["a", "b"].map((end) => `f${id}${end}`);
  try {
    for (const name of names) {
      ip("netns", "add", name);
      namespaces.add(name);
    }
    const [a, b] = names;
    ip("link", "add", devices[0], "netns", a, "type", "veth", "peer", "name", devices[1], "netns", b);
    const hosts = names.map((name, i): Host => {
      const address = `10.77.${process.pid % 250}.${i + 1}`;
      ip("-n", name, "addr", "add", `${address}/24`, "dev", devices[i]);
      ip("-n", name, "link", "set", devices[i], "up");
      ip("-n", name, "link", "set", "lo", "up");
      const setLink = (state: "up" | "down") => void ip("-n", name, "link", "set", devices[i], state);
      return { address, device: devices[i], prefix: ["ip", "netns", "exec", name], setLink };
    });
    return [hosts[0], hosts[1]];
  } catch (error) {
    removeHosts();
    throw error;
  }
}

/** Removes what this process made, and what test processes that are gone have left. */
export function removeHosts(): void {
  for (const name of namespaces) {
    try {
      ip("netns", "del", name);
    } catch {}
    namespaces.delete(name);
  }
}

// A run that is ended early leaves nothing either.
process.on("exit", removeHosts);

function removeLeftOver(): void {
  for (const line of ip("netns", "list").split("\n")) {
    const [, name, pid] = new RegExp(`^(${PREFIX}-(\\d+)-\\S+)`).exec(line) ?? [];
    if (name === undefined || isAlive(Number(pid))) continue;
    try {
      ip("netns", "del", name);
    } catch {}
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Why this machine cannot do it, or null. */
export function whyNoHosts(): string | null {
  if (process.getuid?.() !== 0) return "needs root";
  try {
    removeLeftOver();
    makeHosts();
    removeHosts();
    return null;
  } catch (error) {
    const { code, stderr, message } = error as NodeJS.ErrnoException & { stderr?: string };
    if (code === "ENOENT") return "needs ip of iproute2";
    return `ip: ${(stderr || message).trim().split("\n")[0]}`;
  }
}
