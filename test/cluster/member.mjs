// One process of a group, for tests: meets the others and then agrees on the operations it is told, printing what happens.
// Usage: node member.mjs '{"place":{...},"contract":{...},"secret":"...","deadlineMs":500,"operations":[{...}],"then":"stay"}'
import { ControlPlane, meet } from "../../dist/backends/cuda/cluster/index.js";

const options = JSON.parse(process.argv[2]);
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
await new Promise((resolve) => setTimeout(resolve, options.startsInMs ?? 0));
try {
  const meeting = await meet({
    place: options.place,
    contract: options.contract ?? {},
    payload: () => "payload of process 0",
    secret: options.secret,
    timeoutMs: options.timeoutMs ?? 5000,
  });
  say({ met: meeting.payload });
  await new Promise((resolve) => setTimeout(resolve, options.readyInMs ?? 0));
  const control = new ControlPlane(
    options.place.processRank,
    options.place.numProcesses,
    meeting,
    options.deadlineMs ?? 500,
  );
  for (const operation of options.operations ?? []) {
    if (operation.sleepMs) {
      await new Promise((resolve) => setTimeout(resolve, operation.sleepMs));
      continue;
    }
    if (operation.stop) process.kill(process.pid, "SIGSTOP");
    if (operation.die) process.kill(process.pid, "SIGKILL");
    try {
      say({ agreed: operation.operation, arrivalsUs: await control.agree(operation) });
    } catch (error) {
      say({ code: error.code, message: error.message });
    }
  }
  control.close();
} catch (error) {
  say({ code: error.code, message: error.message });
}
