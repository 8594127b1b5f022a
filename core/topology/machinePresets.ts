import { InvalidArgument } from "../errors.ts";
import type { Family, Machine, Quantity } from "./machine.ts";

const NVLINK = {
  h800: "DeepEP docs/legacy.md: half of H100's NVLink (400 GB/s both directions); about 160 measured",
  hopper: "NVIDIA H100 data sheet: NVLink 900 GB/s both directions, 18 links of 25 GB/s",
  blackwell: "NVIDIA B200 data sheet: NVLink 1,800 GB/s both directions",
  mi300x: "AMD MI300X data sheet: 7 Infinity Fabric links of 128 GB/s both directions",
};
const CX7 = "ConnectX-7, 400 Gb/s per GPU";
const q = (value: number, source: string): Quantity => ({ value, source });

function preset(
  name: string,
  title: string,
  family: Family,
  numbers: readonly [domain: number, nvlink: number, nic: number, hbm: number, sms: number],
  sources: { domain?: string; nvlink: string; nic?: string; hbm: string; sms: string },
): Machine {
  const [domain, nvlink, nic, hbm, sms] = numbers;
  return {
    name,
    title,
    family,
    ranksPerDomain: q(domain, sources.domain ?? "eight GPUs on one NVSwitch board"),
    nvlinkGBps: q(nvlink, sources.nvlink),
    nicGBps: q(nic, sources.nic ?? CX7),
    hbmGBps: q(hbm, sources.hbm),
    numSms: q(sms, sources.sms),
  };
}

/** Machines that come with the program. Numbers are nominal; `--nic` and `--ranks-per-node` change two of them. */
export const MACHINES: readonly Machine[] = [
  preset("h800", "8 x H800 per node", "hopper", [8, 200, 50, 3350, 132], {
    nvlink: NVLINK.h800,
    hbm: "NVIDIA H100 SXM data sheet",
    sms: "NVIDIA H100 SXM data sheet",
  }),
  preset("h100", "8 x H100 SXM per node", "hopper", [8, 450, 50, 3350, 132], {
    nvlink: NVLINK.hopper,
    hbm: "NVIDIA H100 SXM data sheet",
    sms: "NVIDIA H100 SXM data sheet",
  }),
  preset("h200", "8 x H200 SXM per node", "hopper", [8, 450, 50, 4800, 132], {
    nvlink: NVLINK.hopper,
    hbm: "NVIDIA H200 data sheet",
    sms: "NVIDIA H200 data sheet",
  }),
  preset("h20", "8 x H20 per node", "hopper", [8, 450, 50, 4000, 78], {
    nvlink: NVLINK.hopper,
    hbm: "NVIDIA H20 data sheet",
    sms: "NVIDIA H20 data sheet",
  }),
  preset("b200", "8 x B200 per node", "blackwell", [8, 900, 50, 8000, 148], {
    nvlink: NVLINK.blackwell,
    hbm: "NVIDIA B200 data sheet",
    sms: "NVIDIA B200 data sheet",
  }),
  preset("gb200-nvl72", "GB200 NVL72: one domain of 72 GPUs per rack", "blackwell", [72, 900, 50, 8000, 148], {
    domain: "NVIDIA GB200 NVL72 data sheet; smaller domains with --ranks-per-node",
    nvlink: NVLINK.blackwell,
    hbm: "NVIDIA GB200 NVL72 data sheet",
    sms: "NVIDIA B200 data sheet",
  }),
  preset("gb300-nvl72", "GB300 NVL72 with 800 Gb/s NICs", "blackwell", [72, 900, 100, 8000, 148], {
    domain: "NVIDIA GB300 NVL72 data sheet",
    nvlink: NVLINK.blackwell,
    nic: "ConnectX-8, 800 Gb/s per GPU",
    hbm: "NVIDIA GB300 NVL72 data sheet",
    sms: "NVIDIA B200 data sheet",
  }),
  preset("mi300x", "8 x MI300X per node", "other", [8, 448, 50, 5300, 304], {
    domain: "eight GPUs, fully connected",
    nvlink: NVLINK.mi300x,
    hbm: "AMD MI300X data sheet",
    sms: "AMD MI300X data sheet (compute units)",
  }),
];

const ALIASES: readonly (readonly [RegExp, string])[] = [
  [/gb300/i, "gb300-nvl72"],
  [/gb200|nvl72/i, "gb200-nvl72"],
  [/h800/i, "h800"],
  [/h200/i, "h200"],
  [/h20\b/i, "h20"],
  [/b200|sm100/i, "b200"],
  [/h100|sm90/i, "h100"],
  [/mi300/i, "mi300x"],
];

/** The preset whose name, or a GPU name as tables print it ("SM100 (B200)"), is given; null when none fits. */
export function findMachine(name: string): Machine | null {
  const exact = MACHINES.find((machine) => machine.name === name.toLowerCase());
  if (exact) return exact;
  const alias = ALIASES.find(([pattern]) => pattern.test(name));
  return alias ? (MACHINES.find((machine) => machine.name === alias[1]) ?? null) : null;
}

/** The preset of that name. Throws InvalidArgument that lists the names. */
export function machinePreset(name: string): Machine {
  const machine = MACHINES.find((candidate) => candidate.name === name.toLowerCase());
  if (machine) return machine;
  throw new InvalidArgument({
    name: "machine",
    expected: MACHINES.map((known) => known.name).join(", "),
    received: name,
    remedy: "name one of these, or a JSON file (--machine-schema describes it)",
  });
}

/** The machine with other NICs: `gbps` is Gb/s per GPU, as NICs are sold (200, 400, 800). */
export function withNic(machine: Machine, gbps: number): Machine {
  return { ...machine, nicGBps: { value: gbps / 8, source: "given: Gb/s per GPU" } };
}
