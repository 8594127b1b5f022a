/** Routing files of every known source, recognised by content. docs/formats.md describes each. */
export { joinRoutingFiles } from "./join.ts";
export { FORMATS, openRouting } from "./open.ts";
export { type OpenRoutingOptions, ROUTING_FORMAT, ROUTING_VERSION } from "./options.ts";
export { type RoutingFile, type RoutingLayer, rankBoundaries, splitRanks, withoutTokens } from "./routingFile.ts";
