import { InvalidArgument } from "../errors.ts";

/** A number of the real world: what it is worth depends on who said it. */
export interface Quantity {
  readonly value: number;
  /** Who states it; "given on the command line" for an override. */
  readonly source: string;
}

/** GPU generations that share fitted efficiencies; "other" takes them from the machine file. */
export type Family = "hopper" | "blackwell" | "other";
export const FAMILIES: readonly Family[] = ["hopper", "blackwell", "other"];

/**
 * A machine as the model sees it. Speeds are nominal, per GPU and direction, in GB/s (10^9 bytes); efficiencies turn them
 * into what an all-to-all achieves and come from the fitted parameters unless the machine states its own.
 */
export interface Machine {
  readonly name: string;
  readonly title: string;
  readonly family: Family;
  /** Most ranks of one NVLink domain. */
  readonly ranksPerDomain: Quantity;
  readonly nvlinkGBps: Quantity;
  /** 0 = no network. */
  readonly nicGBps: Quantity;
  readonly hbmGBps: Quantity;
  readonly numSms: Quantity;
  /** Measured fractions of nominal that replace the fitted ones. */
  readonly nvlinkEfficiency?: Quantity;
  readonly nicEfficiency?: Quantity;
  /** Speed of one SM relative to Hopper's; default 1, or the fitted one for Blackwell. */
  readonly smSpeed?: Quantity;
}

export const MACHINE_FIELDS = ["ranksPerDomain", "nvlinkGBps", "nicGBps", "hbmGBps", "numSms"] as const;
export const MACHINE_OPTIONAL_FIELDS = ["nvlinkEfficiency", "nicEfficiency", "smSpeed"] as const;

/** The schema of machine files (JSON Schema 2020-12), printed by `simulate --machine-schema`. */
export const MACHINE_SCHEMA = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  title: "fused-a2a machine",
  description: "Nominal speeds per GPU and direction in GB/s (10^9 bytes). Every number may state its source.",
  type: "object",
  required: ["name", "family", ...MACHINE_FIELDS],
  additionalProperties: false,
  properties: {
    $schema: { type: "string" },
    name: { type: "string", minLength: 1 },
    title: { type: "string" },
    family: { enum: FAMILIES, description: "which fitted efficiencies apply; other: Hopper's unless stated here" },
    ranksPerDomain: { $ref: "#/$defs/count", description: "GPUs of one NVLink domain" },
    nvlinkGBps: { $ref: "#/$defs/positive" },
    nicGBps: { $ref: "#/$defs/speed", description: "400 Gb/s = 50; 0 = no network" },
    hbmGBps: { $ref: "#/$defs/positive" },
    numSms: { $ref: "#/$defs/count" },
    nvlinkEfficiency: { $ref: "#/$defs/fraction", description: "all-to-all payload / nominal" },
    nicEfficiency: { $ref: "#/$defs/fraction", description: "payload / nominal" },
    smSpeed: { $ref: "#/$defs/positive", description: "one SM relative to Hopper's" },
  },
  $defs: Object.fromEntries(
    (
      [
        ["speed", { type: "number", minimum: 0 }],
        ["positive", { type: "number", exclusiveMinimum: 0 }],
        ["fraction", { type: "number", exclusiveMinimum: 0, maximum: 1 }],
        ["count", { type: "integer", minimum: 1 }],
      ] as const
    ).map(([name, number]) => [
      name,
      {
        oneOf: [
          number,
          {
            type: "object",
            required: ["value"],
            additionalProperties: false,
            properties: { value: number, source: { type: "string" } },
          },
        ],
      },
    ]),
  ),
} as const;

type NumericField = (typeof MACHINE_FIELDS)[number] | (typeof MACHINE_OPTIONAL_FIELDS)[number];

/** A machine from parsed JSON. Throws InvalidArgument naming the field that breaks MACHINE_SCHEMA. */
export function machineFromJson(json: unknown, file: string): Machine {
  const bad = (name: string, expected: string, received: unknown) =>
    new InvalidArgument({
      name: `machine.${name}`,
      expected,
      received: received === undefined ? "nothing" : JSON.stringify(received),
      where: { file },
      remedy: "see `fused-a2a simulate --machine-schema`",
    });
  if (json === null || typeof json !== "object" || Array.isArray(json)) throw bad("", "an object", json);
  const fields = json as Record<string, unknown>;
  const known = Object.keys(MACHINE_SCHEMA.properties);
  for (const name of Object.keys(fields)) {
    if (!known.includes(name)) throw bad(name, `one of ${known.join(", ")}`, fields[name]);
  }
  const { name, title, family } = fields;
  if (typeof name !== "string" || name === "") throw bad("name", "a name", name);
  if (title !== undefined && typeof title !== "string") throw bad("title", "a text", title);
  if (!FAMILIES.includes(family as Family)) throw bad("family", FAMILIES.join(", "), family);
  const quantity = (field: NumericField): Quantity => {
    const given = fields[field];
    const stated = typeof given === "object" && given !== null ? (given as Partial<Quantity>) : { value: given };
    const { value, source } = stated as { value?: unknown; source?: unknown };
    if (typeof value !== "number" || !isLegal(field, value)) throw bad(field, LEGAL[kindOf(field)].words, given);
    return { value, source: typeof source === "string" ? source : file };
  };
  const optional = Object.fromEntries(
    MACHINE_OPTIONAL_FIELDS.filter((field) => fields[field] !== undefined).map((field) => [field, quantity(field)]),
  );
  return {
    name,
    title: title ?? name,
    family: family as Family,
    ranksPerDomain: quantity("ranksPerDomain"),
    nvlinkGBps: quantity("nvlinkGBps"),
    nicGBps: quantity("nicGBps"),
    hbmGBps: quantity("hbmGBps"),
    numSms: quantity("numSms"),
    ...optional,
  };
}

const LEGAL = {
  count: { words: "a whole number of at least 1", test: (x: number) => Number.isSafeInteger(x) && x >= 1 },
  speed: { words: "GB/s of at least 0", test: (x: number) => x >= 0 && Number.isFinite(x) },
  positive: { words: "a number above 0", test: (x: number) => x > 0 && Number.isFinite(x) },
  fraction: { words: "a fraction above 0, at most 1", test: (x: number) => x > 0 && x <= 1 },
};

function kindOf(field: NumericField): keyof typeof LEGAL {
  if (field === "ranksPerDomain" || field === "numSms") return "count";
  if (field === "nicGBps") return "speed";
  return field === "nvlinkEfficiency" || field === "nicEfficiency" ? "fraction" : "positive";
}

function isLegal(field: NumericField, value: number): boolean {
  return LEGAL[kindOf(field)].test(value);
}
