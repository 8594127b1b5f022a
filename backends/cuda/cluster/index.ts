/** Several processes as one group: who is where, how they meet, what they agree on. */

export { type Contract, describeDisagreements, disagreements } from "./contract.ts";
export { type ArrivalsUs, ControlPlane } from "./control.ts";
export {
  type ClusterPlace,
  DEFAULT_PORT,
  type Environment,
  parseAddress,
  placeByHand,
  placeFromEnvironment,
} from "./environment.ts";
export { type Meeting, meet, PROTOCOL, type RendezvousOptions } from "./rendezvous.ts";
