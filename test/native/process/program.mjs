/** Scenarios of process.test.ts; each prints one line. */
import { isMainThread, parentPort, Worker } from "node:worker_threads";
import { createCudaBackend } from "../../../dist/backends/cuda/index.js";

const SETTINGS = { numExperts: 4, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null };

/** Two ranks; token t goes to expert t % 4, so rank 0 gets tokens 0, 1, 4, 5, ... of both. */
function request(numTokens, hidden) {
  const x = {
    dtype: "fp32",
    shape: [numTokens, hidden],
    data: Float32Array.from({ length: numTokens * hidden }, (_, i) => Math.floor(i / hidden)),
  };
  const ids = { dtype: "i32", shape: [numTokens, 1], data: Int32Array.from({ length: numTokens }, (_, i) => i % 4) };
  return {
    kind: "fused",
    x: [x, x],
    scales: null,
    routing: { topkIdx: [ids, ids], topkWeights: null },
    settings: SETTINGS,
  };
}

async function open(options = {}) {
  const backend = await createCudaBackend({ emulated: true, devices: 2, ...options });
  return { backend, group: await backend.createGroup({ numRanks: 2 }) };
}

async function check(rounds) {
  const { backend, group } = await open();
  for (let i = 0; i < rounds; i++) {
    const { x } = await group.dispatch(request(8, 100));
    const firsts = x.map(({ data }) => Array.from({ length: 8 }, (_, row) => data[row * 100]));
    const expected = [
      [0, 1, 4, 5, 0, 1, 4, 5],
      [2, 3, 6, 7, 2, 3, 6, 7],
    ];
    if (JSON.stringify(firsts) !== JSON.stringify(expected)) throw new Error(`received ${JSON.stringify(firsts)}`);
  }
  await backend.close();
  return "ok";
}

const worker = (scenario) => new Worker(new URL(import.meta.url), { argv: [scenario] });
const answer = (of) => new Promise((resolve, reject) => of.once("message", resolve).once("error", reject));

const SCENARIOS = {
  async workers() {
    const workers = [1, 2, 3].map(() => worker("in-worker"));
    const answers = workers.map(answer);
    const main = await check(10);
    return [`main ${main}`, ...(await Promise.all(answers)).map((text) => `worker ${text}`)].join(", ");
  },
  async "in-worker"() {
    parentPort.postMessage(await check(10));
  },
  async "exit-in-flight"() {
    const { group } = await open();
    for (let i = 0; i < 6; i++) void group.dispatch(request(512, 512));
    const device = await group.upload(0, request(512, 512).x[0]);
    void device.download();
    await new Promise((resolve) => setTimeout(resolve, 5));
    console.log("leaving");
    process.exit(0);
  },
  async "busy-worker"() {
    const { group } = await open();
    for (let i = 0; i < 100; i++) void group.dispatch(request(512, 512));
    parentPort.postMessage("busy");
  },
  async "terminate-in-flight"() {
    const busy = worker("busy-worker");
    await answer(busy);
    await busy.terminate();
    return `terminated, main ${await check(2)}`;
  },
  async "never-closed"() {
    const { group } = await open();
    await group.dispatch(request(8, 8));
    return "ok";
  },
  async "unhandled-event"() {
    const { backend, group } = await open();
    const consume = () => {
      throw new Error("nobody reads the event");
    };
    await group.dispatch({ ...request(8, 8), asyncFinish: true, consume });
    await group.dispatch(request(8, 8));
    await backend.close();
    return "ok";
  },
  async "unhandled-rejection"() {
    const { group } = await open();
    void group.dispatch({ ...request(8, 8), settings: { ...SETTINGS, numExperts: 3 } });
    await new Promise((resolve) => setTimeout(resolve, 200));
  },
};

const line = await SCENARIOS[process.argv[2]]();
if (isMainThread && line !== undefined) console.log(line);
