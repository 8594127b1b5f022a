/** The backend over an adapter that an entry found: the same in Node and in the browser. */
import type { Backend } from "../../core/backend.ts";
import { closeAll, type Operations } from "../../core/operations.ts";
import type { AdapterReport } from "./adapters/report.ts";
import type { Context } from "./context.ts";
import { Device } from "./device.ts";
import { WebGpuGroup } from "./group.ts";
import { Launcher } from "./launcher.ts";
import type { KernelText, WebGpuOptions } from "./options.ts";
import { BufferPool } from "./pool.ts";
import { flushesSubnormals } from "./probe.ts";

export interface WebGpuBackend extends Backend {
  readonly name: "webgpu";
  /** How the adapter was found, and what it is. */
  readonly report: AdapterReport;
  /** Bytes of device memory that exist now, in use or kept for the next operation. */
  heldBytes(): number;
  /** The device itself, for measurements. */
  readonly context: Context;
}

export async function openBackend(
  adapter: GPUAdapter,
  report: AdapterReport,
  text: KernelText,
  options: WebGpuOptions,
): Promise<WebGpuBackend> {
  if (report.chosen === null) throw new Error("openBackend needs a chosen adapter");
  const device = await Device.open(adapter, report.chosen, options);
  const pool = new BufferPool(device);
  const probed = { device, pool, launcher: new Launcher(device, text, false) };
  const context: Context = { device, pool, launcher: new Launcher(device, text, await flushesSubnormals(probed)) };
  const groups = new Set<Operations>();
  return {
    name: "webgpu",
    report,
    context,
    heldBytes: () => pool.heldBytes,
    createGroup: async (groupOptions) => {
      device.expectUsable();
      return new WebGpuGroup(context, groups, groupOptions);
    },
    close: async () => {
      await closeAll(groups);
      await device.close();
    },
  };
}
