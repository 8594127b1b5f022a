/**
 * Where the processes of a group meet: process 0 listens, the others dial. It carries a contract and one small payload
 * (the NCCL id), never data. With a shared secret both sides prove that they know it (HMAC-SHA256 over fresh nonces).
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { connect, createServer, type Server } from "node:net";
import { BackendFailure, ContractMismatch, FusedA2AError, Timeout, Unavailable } from "../../../core/errors.ts";
import { type Contract, describeDisagreements, disagreements, nameProcesses, type Signed } from "./contract.ts";
import { withDeadline } from "./deadline.ts";
import type { ClusterPlace } from "./environment.ts";
import { Channel, type Message, nextMessage, refuse } from "./messages.ts";

const PROTOCOL = 1;
const RETRY_MS = 100;

interface RendezvousOptions {
  readonly place: ClusterPlace;
  /** What every process must have the same: versions, sizes, settings. */
  readonly contract: Contract;
  /** Made by process 0 once everyone is there. */
  readonly payload: () => Promise<string> | string;
  /** Refuse processes that do not know it. */
  readonly secret?: string;
  /** Address that process 0 listens on; default the rendezvous host. */
  readonly bind?: string;
  readonly timeoutMs: number;
}

export interface Meeting {
  readonly payload: string;
  /** Process 0: a channel per other process, by process rank; others: one channel, to process 0. */
  readonly channels: ReadonlyMap<number, Channel>;
}

/**
 * Meets the other processes. Throws Timeout naming the missing processes (or that process 0 does not answer),
 * ContractMismatch naming process, field and both values on every process, Unavailable when the port or the payload cannot
 * be had, BackendFailure when process 0 is gone. When process 0 cannot go on, the others throw what it throws.
 */
export function meet(options: RendezvousOptions): Promise<Meeting> {
  return options.place.processRank === 0 ? host(options) : join(options);
}

async function host(options: RendezvousOptions): Promise<Meeting> {
  const { place, contract, secret, timeoutMs } = options;
  const channels = new Map<number, Channel>();
  const signed: Signed[] = [{ process: 0, contract: identity(place, contract) }];
  /** Whoever has called, members or not. */
  const callers = new Set<Channel>();
  const server = createServer();
  await listen(server, options.bind ?? place.host, place.port);
  try {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(missing(place, channels, timeoutMs)), timeoutMs);
      const settle = (act: () => void) => {
        clearTimeout(timer);
        act();
      };
      server.on("connection", (socket) => {
        const channel = new Channel(socket, `a process at ${socket.remoteAddress}`);
        const nonce = randomBytes(16).toString("hex");
        callers.add(channel);
        channel.onClose = () => callers.delete(channel);
        channel.onMessage = (message) => {
          const refusal = checkHello(message, place, channels, nonce, secret);
          if (refusal !== null) return refuse(channel, "CONTRACT_MISMATCH", refusal);
          // Its first operation may come before this process is ready for it: it waits for who listens next.
          channel.onMessage = null;
          const process = Number(message.processRank);
          channel.name = nameProcesses([process]);
          channels.set(process, channel);
          signed.push({ process, contract: message.contract as Contract });
          channel.send({ type: "proof", proof: prove(secret, `${message.nonce}`, 0) });
          channel.onClose = (why) => {
            // Once all are there it stays in its place: whoever listens next is told that it has left.
            if (channels.size === place.numProcesses - 1) return;
            channels.delete(process);
            settle(() =>
              reject(
                new Timeout(
                  `rendezvous: process ${process} left before the group was complete: ${why}; look at its log, then start the group again`,
                ),
              ),
            );
          };
          if (channels.size === place.numProcesses - 1) settle(resolve);
        };
        channel.send({ type: "challenge", protocol: PROTOCOL, nonce, secret: secret !== undefined });
      });
    });
    signed.sort((a, b) => a.process - b.process);
    const found = disagreements(signed);
    if (found.length > 0)
      throw new ContractMismatch(
        `rendezvous: processes disagree: ${describeDisagreements(found)}; start all of them with the same version and settings`,
      );
    const payload = await options.payload();
    for (const channel of channels.values()) {
      callers.delete(channel);
      channel.send({ type: "welcome", payload });
    }
    for (const stranger of callers) refuse(stranger, "CONTRACT_MISMATCH", "rendezvous: the group is complete");
    return { payload, channels };
  } catch (error) {
    const code = error instanceof FusedA2AError ? error.code : "BACKEND_FAILURE";
    for (const channel of callers) refuse(channel, code, (error as Error).message);
    throw error;
  } finally {
    server.close();
  }
}

async function join(options: RendezvousOptions): Promise<Meeting> {
  const { place, contract, secret, timeoutMs } = options;
  const deadline = performance.now() + timeoutMs;
  const { channel, challenge } = await dial(place, deadline, timeoutMs);
  const left = Math.max(1, deadline - performance.now());
  return withDeadline(
    left,
    () =>
      new Timeout(
        `rendezvous: ${address(place)} answered, but the group was not complete within ${timeoutMs} ms; process 0 names who is missing`,
      ),
    async () => {
      if (challenge.secret === true && secret === undefined) {
        throw new ContractMismatch(
          `rendezvous: process 0 asks for a shared secret; give process ${place.processRank} the same one`,
        );
      }
      const nonce = randomBytes(16).toString("hex");
      channel.send({
        type: "hello",
        protocol: PROTOCOL,
        processRank: place.processRank,
        nonce,
        proof: prove(secret, `${challenge.nonce}`, place.processRank),
        contract: identity(place, contract),
      });
      const proof = await nextMessage(channel, "proof", hostGone);
      if (secret !== undefined && !sameProof(`${proof.proof}`, prove(secret, nonce, 0))) {
        throw new ContractMismatch("rendezvous: process 0 does not know the shared secret; check who listens there");
      }
      const welcome = await nextMessage(channel, "welcome", hostGone);
      return { payload: `${welcome.payload}`, channels: new Map([[0, channel]]) };
    },
  ).catch((error) => {
    channel.end();
    throw error;
  });
}

/** What every process says of itself beside the caller's contract. */
function identity(place: ClusterPlace, contract: Contract): Contract {
  return { processes: place.numProcesses, ...contract };
}

function checkHello(
  message: Message,
  place: ClusterPlace,
  channels: ReadonlyMap<number, Channel>,
  nonce: string,
  secret: string | undefined,
): string | null {
  const rank = Number(message.processRank);
  if (message.type !== "hello" || message.protocol !== PROTOCOL) {
    return `rendezvous: protocol: expected ${PROTOCOL}, received ${message.protocol}; use the same version on every process`;
  }
  if (!Number.isSafeInteger(rank) || rank < 1 || rank >= place.numProcesses) {
    return `rendezvous: node-rank: expected 1..${place.numProcesses - 1}, received ${message.processRank}; number the processes from 0`;
  }
  if (channels.has(rank)) return `rendezvous: process ${rank} is already here; give each process its own number`;
  if (secret !== undefined && !sameProof(`${message.proof}`, prove(secret, nonce, rank))) {
    return `rendezvous: process ${rank} does not know the shared secret; give every process the same one`;
  }
  return typeof message.contract === "object" && message.contract !== null ? null : "rendezvous: no contract came";
}

function hostGone(why: string): BackendFailure {
  return new BackendFailure(`rendezvous: process 0 is gone: ${why}; look at its log, then start the group again`);
}

function prove(secret: string | undefined, nonce: string, process: number): string {
  return secret === undefined ? "" : createHmac("sha256", secret).update(`${nonce}:${process}`).digest("hex");
}

function sameProof(a: string, b: string): boolean {
  const [given, known] = [Buffer.from(a), Buffer.from(b)];
  return given.length === known.length && timingSafeEqual(given, known);
}

function missing(place: ClusterPlace, channels: ReadonlyMap<number, Channel>, timeoutMs: number): Timeout {
  const absent = Array.from({ length: place.numProcesses - 1 }, (_, i) => i + 1).filter((rank) => !channels.has(rank));
  return new Timeout(
    `rendezvous at ${address(place)}: after ${timeoutMs} ms ${channels.size + 1} of ${place.numProcesses} processes are here; missing: ${nameProcesses(absent)}; start them, or check that they reach this address`,
  );
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) =>
      reject(
        new Unavailable(
          `rendezvous: process 0 cannot listen on ${host}:${port}: ${error.message}; choose another --rendezvous`,
        ),
      ),
    );
    server.listen({ host, port }, resolve);
  });
}

/**
 * Process 0 may start later than the others: dialled again until the deadline. A forwarder on the way (a tunnel, a
 * service) may take the call before process 0 listens and drop it: process 0 is there when it has asked its question.
 */
async function dial(
  place: ClusterPlace,
  deadline: number,
  timeoutMs: number,
): Promise<{ channel: Channel; challenge: Message }> {
  for (;;) {
    const reason = await challenged(place, deadline);
    if (typeof reason !== "string") return reason;
    if (performance.now() + RETRY_MS > deadline) {
      throw new Timeout(
        `rendezvous: process 0 did not answer at ${address(place)} within ${timeoutMs} ms (${reason}); start it, or check the address`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

/** One try: the channel and what process 0 asks, or why there is none. */
async function challenged(
  place: ClusterPlace,
  deadline: number,
): Promise<{ channel: Channel; challenge: Message } | string> {
  const channel = await new Promise<Channel | string>((resolve) => {
    const socket = connect({ host: place.host, port: place.port });
    socket.once("connect", () => {
      socket.removeAllListeners("error");
      resolve(new Channel(socket, nameProcesses([0])));
    });
    socket.once("error", (error) => resolve(error.message));
  });
  if (typeof channel === "string") return channel;
  try {
    const silent = () => new Timeout("it took the call and said nothing");
    const left = Math.max(1, deadline - performance.now());
    const challenge = await withDeadline(left, silent, () =>
      nextMessage(channel, "challenge", (why) => new Error(why)),
    );
    return { channel, challenge };
  } catch (error) {
    channel.end();
    return (error as Error).message;
  }
}

function address(place: ClusterPlace): string {
  return `${place.host}:${place.port}`;
}
