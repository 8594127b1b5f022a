/** Several processes as one group: who is where, how they meet, what they agree on. */

export type { Contract } from "./contract.ts";
export { ControlPlane } from "./control.ts";
export { withDeadline } from "./deadline.ts";
export { type ClusterPlace, DEFAULT_PORT, parseAddress, placeByHand, placeFromEnvironment } from "./environment.ts";
export { ranksOfProcess, ranksPerNodeOf } from "./ranks.ts";
export { type Meeting, meet } from "./rendezvous.ts";
