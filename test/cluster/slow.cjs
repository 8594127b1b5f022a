// Preloaded into a process of a group: it comes SLOW_MS late to its first operation, as one that computes for longer does.
const net = require("node:net");

const { write } = net.Socket.prototype;
let isLate = false;
net.Socket.prototype.write = function (data, ...rest) {
  if (!isLate && typeof data === "string" && data.includes('"type":"operation"')) {
    isLate = true;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(process.env.SLOW_MS));
  }
  return write.call(this, data, ...rest);
};
