/** Several processes as one group: who is where, how they meet, what they agree on. */

export { type Contract, describeDisagreements, disagreements } from "./contract.ts";
export { type ArrivalsUs, ControlPlane } from "./control.ts";
export { type ClusterPlace, DEFAULT_PORT, parseAddress, placeByHand, placeFromEnvironment } from "./environment.ts";
export type { Environment } from "./launchers.ts";
export { ranksOfProcess, ranksPerNodeOf } from "./ranks.ts";
export { type Meeting, meet, PROTOCOL, type RendezvousOptions } from "./rendezvous.ts";
