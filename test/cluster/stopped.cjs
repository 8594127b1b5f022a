// Preloaded into a process of a group: it is stopped STOP_AFTER_MS after its first operation began, for STOP_MS.
const { spawn } = require("node:child_process");
const net = require("node:net");

const { write } = net.Socket.prototype;
const seconds = (name) => Number(process.env[name]) / 1e3;
let isStopped = false;
net.Socket.prototype.write = function (data, ...rest) {
  if (!isStopped && typeof data === "string" && data.includes('"type":"operation"')) {
    isStopped = true;
    const { pid } = process;
    const script = `sleep ${seconds("STOP_AFTER_MS")}; kill -STOP ${pid}; sleep ${seconds("STOP_MS")}; kill -CONT ${pid}`;
    spawn("sh", ["-c", script], { stdio: "ignore", detached: true, env: { PATH: process.env.PATH } }).unref();
  }
  return write.call(this, data, ...rest);
};
