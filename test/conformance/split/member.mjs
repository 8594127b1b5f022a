// One process of a split group, for tests: performs on its own group what its parent asks for, one message per call. It
// serves one group after the other. Host tensors and handles' arrays travel as they are (advanced serialisation).
import { createCudaBackend } from "../../../dist/backends/cuda/index.js";
import { Handle } from "../../../dist/core/handle/handle.js";

let group = null;
/** Handles that live here, by the number their dispatch or their first use got. */
const handles = new Map();
const memories = new Map();

const CALLS = {
  async open(place, options, backend) {
    handles.clear();
    const cluster = { place, timeoutMs: 20_000, deadlineMs: 20_000 };
    group = await (await createCudaBackend({ ...backend, cluster })).createGroup(options);
    return { backend: group.backend, localRanks: group.localRanks };
  },
  async layout(routing, numExperts) {
    const layouts = await group.layout(routing, numExperts);
    return layouts.map((layout) => ({ ...layout, isTokenInRank: layout.isTokenInRank() }));
  },
  async dispatch(request, handle, number) {
    const result = await group.dispatch({ ...request, ...(handle && { handle: handleOf(handle) }) });
    await result.event.currentStreamWait();
    if (!handle) handles.set(number, result.handle);
    const { event: _, handle: made, ...rest } = result;
    return { ...rest, meta: made.meta };
  },
  async combine(request, handle) {
    const { event, ...rest } = await group.combine({ ...request, handle: handleOf(handle) });
    await event.currentStreamWait();
    return rest;
  },
  handleData: (number) => handles.get(number).data(),
  handleCounts: (number) => handles.get(number).tokensPerExpert(),
  castToFp8: (x) => group.castToFp8(x),
  castBack: (x, scales) => group.castBack(x, scales),
  scaleRows: (x, factors) => group.scaleRows(x, factors),
  setNumSms: async (numSms) => group.setNumSms(numSms),
  async allocateBuffer(bytes, number) {
    memories.set(number, await group.allocateBuffer(bytes));
  },
  async free(number) {
    memories.get(number).free();
    memories.delete(number);
  },
  close: () => group.close(),
};

function handleOf({ number, data }) {
  if (data) handles.set(number, Handle.of(data));
  return handles.get(number);
}

process.on("message", async ({ id, call, args }) => {
  try {
    process.send({ id, value: await CALLS[call](...args) });
  } catch (error) {
    const { code, message, problem, waits } = error;
    process.send({ id, error: { code, message: code === undefined ? `${error.stack}` : message, problem, waits } });
  }
});
process.on("disconnect", () => process.exit(0));
