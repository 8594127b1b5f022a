export { createOracleBackend } from "./group.ts";
