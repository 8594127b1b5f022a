/** Load statistics of routing: pure functions over typed arrays, each number with its formula beside it. */
export { COUNT_FORMULAS, countRouting, type Placement, type RoutingCounts, splitEvenly } from "./counts.ts";
export { LOAD_FORMULAS, type LoadStatistics, loadStatistics } from "./load.ts";
export { ROUTING_FORMULAS, type RoutingStatistics, routingStatistics } from "./routing.ts";
