/**
 * Discrete events without randomness: jobs visit servers in a fixed order; each server takes jobs first come, first
 * served, ties in the order of submission. Equal inputs give equal times to the last bit.
 */
export interface Visit {
  readonly server: number;
  readonly serviceUs: number;
}

/** A binary heap of (time, sequence), columns of typed arrays that grow. */
class EventQueue {
  #time = new Float64Array(1024);
  #job = new Int32Array(1024);
  #sequence = new Float64Array(1024);
  #size = 0;
  #pushed = 0;

  get size(): number {
    return this.#size;
  }

  push(timeUs: number, job: number): void {
    if (this.#size === this.#time.length) this.#grow();
    let i = this.#size++;
    const sequence = this.#pushed++;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (this.#time[parent] <= timeUs) break;
      this.#move(parent, i);
      i = parent;
    }
    this.#time[i] = timeUs;
    this.#job[i] = job;
    this.#sequence[i] = sequence;
  }

  /** Removes the earliest event: its job and time. */
  pop(): { job: number; timeUs: number } {
    const result = { job: this.#job[0], timeUs: this.#time[0] };
    const last = --this.#size;
    const time = this.#time[last];
    const sequence = this.#sequence[last];
    const job = this.#job[last];
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= last) break;
      if (child + 1 < last && this.#before(child + 1, child)) child++;
      if (time < this.#time[child] || (time === this.#time[child] && sequence < this.#sequence[child])) break;
      this.#move(child, i);
      i = child;
    }
    this.#time[i] = time;
    this.#sequence[i] = sequence;
    this.#job[i] = job;
    return result;
  }

  #before(a: number, b: number): boolean {
    return this.#time[a] < this.#time[b] || (this.#time[a] === this.#time[b] && this.#sequence[a] < this.#sequence[b]);
  }

  #move(from: number, to: number): void {
    this.#time[to] = this.#time[from];
    this.#job[to] = this.#job[from];
    this.#sequence[to] = this.#sequence[from];
  }

  #grow(): void {
    const length = this.#time.length * 2;
    const time = new Float64Array(length);
    const job = new Int32Array(length);
    const sequence = new Float64Array(length);
    time.set(this.#time);
    job.set(this.#job);
    sequence.set(this.#sequence);
    [this.#time, this.#job, this.#sequence] = [time, job, sequence];
  }
}

/** Servers and the jobs that pass them. */
export class ServerNetwork {
  readonly busyUs: Float64Array;
  readonly #freeAt: Float64Array;
  readonly #queue = new EventQueue();
  readonly #visits: (readonly Visit[])[] = [];
  readonly #next: number[] = [];
  readonly #done: ((timeUs: number) => void)[] = [];

  constructor(numServers: number) {
    this.busyUs = new Float64Array(numServers);
    this.#freeAt = new Float64Array(numServers);
  }

  /** A job that is ready at `readyUs`, makes its visits in order and then calls `done`, which may submit more jobs. */
  submit(readyUs: number, visits: readonly Visit[], done: (timeUs: number) => void): void {
    const job = this.#visits.push(visits) - 1;
    this.#next.push(0);
    this.#done.push(done);
    this.#queue.push(readyUs, job);
  }

  /** Runs until nothing is left; the time of the last completion. */
  run(): number {
    let last = 0;
    while (this.#queue.size > 0) {
      const { job, timeUs } = this.#queue.pop();
      const visit = this.#visits[job][this.#next[job]++];
      if (visit === undefined) {
        last = Math.max(last, timeUs);
        this.#visits[job] = [];
        this.#done[job](timeUs);
        continue;
      }
      const finish = Math.max(timeUs, this.#freeAt[visit.server]) + visit.serviceUs;
      this.#freeAt[visit.server] = finish;
      this.busyUs[visit.server] += visit.serviceUs;
      this.#queue.push(finish, job);
    }
    return last;
  }
}
