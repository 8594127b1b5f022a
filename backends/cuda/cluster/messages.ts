/** Messages between the processes of a group: one JSON object per line over TCP, small and few; data never goes this way. */
import type { Socket } from "node:net";
import { BackendFailure, ContractMismatch, type FusedA2AError, Timeout, Unavailable } from "../../../core/errors.ts";

/** Longest line of one who has not proved to belong here: a contract. */
const MAX_LINE_BYTES = 1 << 20;
/** Longest line of a member: what all processes say in an exchange. */
export const MAX_GATHERED_BYTES = 64 << 20;

export type Message = { readonly type: string } & Readonly<Record<string, unknown>>;

/** A socket that speaks in messages. `onMessage` and `onClose` may be set at any time; messages wait for a listener. */
export class Channel {
  /** Who is at the other end, for errors. */
  name: string;
  maxLineBytes = MAX_LINE_BYTES;
  readonly #socket: Socket;
  readonly #waiting: Message[] = [];
  #buffered = "";
  #listener: ((message: Message) => void) | null = null;
  #closeListener: ((why: string) => void) | null = null;
  #closed: string | null = null;

  constructor(socket: Socket, name: string) {
    this.#socket = socket;
    this.name = name;
    socket.setNoDelay(true);
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => this.#receive(text));
    socket.on("error", (error) => this.#close(error.message));
    socket.on("close", () => this.#close("it closed the connection"));
  }

  /** Null: messages wait. A listener may set it to null to leave the rest to the next one. */
  set onMessage(listener: ((message: Message) => void) | null) {
    this.#listener = listener;
    this.#deliver();
  }

  set onClose(listener: (why: string) => void) {
    this.#closeListener = listener;
    if (this.#closed !== null) listener(this.#closed);
  }

  send(message: Message): void {
    if (this.#closed === null) this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  /** Sends what is queued and ends; a listener is not told. */
  end(message?: Message): void {
    this.#closeListener = null;
    if (message !== undefined) this.send(message);
    this.#socket.end();
    // A stopped process never answers the end: its side must not keep ours open.
    setTimeout(() => this.#socket.destroy(), 200).unref();
  }

  #receive(text: string): void {
    this.#buffered += text;
    const lines = this.#buffered.split("\n");
    this.#buffered = lines.pop() ?? "";
    if (this.#buffered.length > this.maxLineBytes) {
      this.#socket.destroy(new Error("a message without an end"));
      return;
    }
    for (const line of lines) {
      const message = parse(line);
      if (message === null) {
        this.#socket.destroy(new Error("it does not speak this protocol"));
        return;
      }
      this.#waiting.push(message);
    }
    this.#deliver();
  }

  #deliver(): void {
    while (this.#listener !== null && this.#waiting.length > 0) this.#listener(this.#waiting.shift() as Message);
  }

  #close(why: string): void {
    if (this.#closed !== null) return;
    this.#closed = why;
    this.#closeListener?.(why);
  }
}

function parse(line: string): Message | null {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null && typeof (value as Message).type === "string"
      ? (value as Message)
      : null;
  } catch {
    return null;
  }
}

/** The next message of a type. Rejects with the other end's refusal, or with what `gone` makes of its leaving. */
export function nextMessage(channel: Channel, type: string, gone: (why: string) => Error): Promise<Message> {
  return new Promise((resolve, reject) => {
    channel.onClose = (why) => reject(gone(why));
    channel.onMessage = (message) => {
      if (message.type !== type && message.type !== "refused") return;
      // What comes right behind belongs to whoever listens next.
      channel.onMessage = null;
      if (message.type === type) resolve(message);
      else reject(refusal(message));
    };
  });
}

/** Ends with the reason why: `nextMessage` at the other end rejects with an error of that code. */
export function refuse(channel: Channel, code: string, reason: string): void {
  channel.onMessage = null;
  channel.end({ type: "refused", code, reason });
}

const REFUSALS: Readonly<Record<string, new (message: string) => FusedA2AError>> = {
  CONTRACT_MISMATCH: ContractMismatch,
  TIMEOUT: Timeout,
  UNAVAILABLE: Unavailable,
};

function refusal({ code, reason }: Message): FusedA2AError {
  return new (REFUSALS[`${code}`] ?? BackendFailure)(`${reason}`);
}
