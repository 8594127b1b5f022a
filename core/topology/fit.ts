import { type ErrorSummary, type Figure, figureError, predictFigure, summarizeErrors } from "./benchmark.ts";
import { FITTED_NAMES, PARAMETERS, type ParameterName, type Parameters, priorParameters } from "./parameters.ts";

/** One standard deviation of a published figure about a right model: scatter between clusters, runs and versions. */
const FIGURE_SPREAD = 0.05;
/** Beyond this many deviations a figure counts linearly (soft L1): one odd row must not bend the rest. */
const ROBUST_AT = 2;
const MAX_STEPS = 60;

/** What is known before a row is read: values, and one standard deviation of their logarithms. */
export interface Knowledge {
  readonly parameters: Parameters;
  readonly spread: Readonly<Partial<Record<ParameterName, number>>>;
}

/** From elsewhere than tables of dispatch and combine: what priorSource names. */
export const INDEPENDENT: Knowledge = { parameters: priorParameters(), spread: {} };

export interface Fit {
  readonly parameters: Parameters;
  /** Relative standard error of each fitted parameter; near the prior's spread = the rows say nothing about it. */
  readonly relativeError: Readonly<Partial<Record<ParameterName, number>>>;
  readonly numFigures: number;
  readonly numParameters: number;
}

/**
 * Maximum a posteriori fit of the logarithms: residuals are log(predicted / published) in units of FIGURE_SPREAD, plus one
 * residual per parameter that pulls it to its prior. Levenberg-Marquardt with numeric derivatives, deterministic.
 * `from` is where the search starts, not what it is pulled to. Systems with many figures count by the square root of their number, so that one long table does not decide alone.
 */
export function fitParameters(
  figures: readonly Figure[],
  knowledge: Knowledge = INDEPENDENT,
  from: Parameters = knowledge.parameters,
): Fit {
  const sizes = new Map<string, number>();
  for (const { system } of figures) sizes.set(system, (sizes.get(system) ?? 0) + 1);
  const weights = figures.map(({ system }) => (sizes.get(system) ?? 1) ** -0.25 / FIGURE_SPREAD);
  const start = knowledge.parameters;
  const spreadOf = (name: ParameterName) => knowledge.spread[name] ?? PARAMETERS[name].spread;
  const toParameters = (logs: Float64Array): Parameters => ({
    ...start,
    ...Object.fromEntries(FITTED_NAMES.map((name, i) => [name, clamp(name, Math.exp(logs[i]))])),
  });
  const residuals = (logs: Float64Array): Float64Array => {
    const parameters = toParameters(logs);
    const result = new Float64Array(figures.length + FITTED_NAMES.length);
    figures.forEach((figure, i) => {
      result[i] = Math.log(predictFigure(figure, parameters) / figure.value) * weights[i];
    });
    FITTED_NAMES.forEach((name, i) => {
      result[figures.length + i] = (logs[i] - Math.log(start[name])) / spreadOf(name);
    });
    return result;
  };
  const cost = (logs: Float64Array) => robustCost(residuals(logs), figures.length);
  let found = levenbergMarquardt(
    residuals,
    Float64Array.from(FITTED_NAMES, (name) => Math.log(from[name])),
    figures.length,
  );
  // Where a maximum hides a term its slope is zero: looks further along each parameter before it believes in a minimum.
  for (let kicked = kick(found.logs, cost); kicked !== null; kicked = kick(found.logs, cost)) {
    found = levenbergMarquardt(residuals, kicked, figures.length);
  }
  const { logs, covariance } = found;
  return {
    parameters: toParameters(logs),
    relativeError: Object.fromEntries(FITTED_NAMES.map((name, i) => [name, Math.sqrt(covariance[i][i])])),
    numFigures: figures.length,
    numParameters: FITTED_NAMES.length,
  };
}

export interface Fold {
  readonly name: string;
  readonly held: ErrorSummary;
}

/** Leaves out each group in turn, fits on the rest and predicts it: the errors of all held-out figures together. */
export function crossValidate(
  figures: readonly Figure[],
  groupOf: (figure: Figure) => string,
  progress?: (fraction: number) => void,
  knowledge: Knowledge = INDEPENDENT,
): { readonly folds: readonly Fold[]; readonly all: ErrorSummary } {
  const groups = [...new Set(figures.map(groupOf))];
  const all: number[] = [];
  // One fold less is a small step from all of them: the search starts there.
  const { parameters: start } = fitParameters(figures, knowledge);
  const folds = groups.map((name, i) => {
    const { parameters } = fitParameters(
      figures.filter((figure) => groupOf(figure) !== name),
      knowledge,
      start,
    );
    const errors = figures.filter((figure) => groupOf(figure) === name).map((f) => figureError(f, parameters));
    all.push(...errors);
    progress?.((i + 1) / groups.length);
    return { name, held: summarizeErrors(errors) };
  });
  return { folds, all: summarizeErrors(all) };
}

function clamp(name: ParameterName, value: number): number {
  const [low, high] = PARAMETERS[name].range;
  return Math.min(high, Math.max(low, value));
}

const KICKS = [0.5, 0.7, 1.4, 2, 3];

/** The best point along the axes that costs less than here; null when there is none. */
function kick(logs: Float64Array, cost: (logs: Float64Array) => number): Float64Array | null {
  let best: Float64Array | null = null;
  let least = cost(logs) * (1 - 1e-6);
  for (let i = 0; i < logs.length; i++) {
    for (const factor of KICKS) {
      const moved = logs.slice();
      moved[i] += Math.log(factor);
      const value = cost(moved);
      if (value < least) [best, least] = [moved, value];
    }
  }
  return best;
}

/** Soft-L1 weight of the first `numRobust` residuals (priors stay quadratic). */
function robustWeight(residual: number): number {
  return 1 / Math.sqrt(1 + (residual / ROBUST_AT) ** 2);
}

function robustCost(residuals: Float64Array, numRobust: number): number {
  let cost = 0;
  residuals.forEach((r, i) => {
    cost += i < numRobust ? 2 * ROBUST_AT ** 2 * (Math.sqrt(1 + (r / ROBUST_AT) ** 2) - 1) : r * r;
  });
  return cost;
}

function levenbergMarquardt(
  residuals: (x: Float64Array) => Float64Array,
  initial: Float64Array,
  numRobust: number,
): { logs: Float64Array; covariance: number[][] } {
  let x = initial;
  let r = residuals(x);
  let cost = robustCost(r, numRobust);
  let damping = 1e-3;
  const n = x.length;
  let normal: number[][] = [];
  for (let step = 0; step < MAX_STEPS; step++) {
    const jacobian = Array.from({ length: n }, (_, j) => {
      const moved = x.slice();
      moved[j] += 1e-5;
      return residuals(moved).map((value, i) => (value - r[i]) / 1e-5);
    });
    const weight = r.map((value, i) => (i < numRobust ? robustWeight(value) : 1));
    normal = jacobian.map((a) => jacobian.map((b) => dot(a, b, weight)));
    const gradient = jacobian.map((a) => dot(a, r, weight));
    let improved = false;
    while (damping < 1e8) {
      const damped = normal.map((line, i) => line.map((v, j) => (i === j ? v * (1 + damping) : v)));
      const change = solve(
        damped,
        gradient.map((g) => -g),
      );
      const next = x.map((value, i) => value + change[i]);
      const nextResiduals = residuals(next);
      const nextCost = robustCost(nextResiduals, numRobust);
      if (nextCost < cost) {
        improved = cost - nextCost > 1e-8 * cost;
        [x, r, cost] = [next, nextResiduals, nextCost];
        damping = Math.max(1e-9, damping / 10);
        break;
      }
      damping *= 10;
    }
    if (!improved) break;
  }
  const identity = Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => (i === j ? 1 : 0)));
  return { logs: x, covariance: identity.map((column) => solve(normal, column)) };
}

function dot(a: Float64Array, b: Float64Array, weight: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i] * weight[i];
  return sum;
}

/** Gaussian elimination with partial pivoting; the priors make the matrix regular. */
function solve(matrix: readonly (readonly number[])[], right: readonly number[]): number[] {
  const n = right.length;
  const a = matrix.map((line, i) => [...line, right[i]]);
  for (let column = 0; column < n; column++) {
    let pivot = column;
    for (let i = column + 1; i < n; i++) if (Math.abs(a[i][column]) > Math.abs(a[pivot][column])) pivot = i;
    [a[column], a[pivot]] = [a[pivot], a[column]];
    for (let i = column + 1; i < n; i++) {
      const factor = a[i][column] / a[column][column];
      for (let j = column; j <= n; j++) a[i][j] -= factor * a[column][j];
    }
  }
  const x = new Array<number>(n).fill(0);
  for (let i = n - 1; i >= 0; i--) {
    let sum = a[i][n];
    for (let j = i + 1; j < n; j++) sum -= a[i][j] * x[j];
    x[i] = sum / a[i][i];
  }
  return x;
}
