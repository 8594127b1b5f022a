/** The safetensors container (design section 5): lazy reading over a ByteSource, streaming writing to a ByteSink. */
export { MAX_HEADER_BYTES, type TensorEntry, type UnsupportedEntry } from "./header.ts";
export { openSafetensors, type SafetensorsFile } from "./read.ts";
export { type SafetensorsEntry, safetensorsBytes, writeSafetensors } from "./write.ts";
