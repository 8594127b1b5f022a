const MAX_RANGES = 3;

/** Rows that break a rule: how many, and the first few stretches of them. Rows are added ascending. */
export class RowRanges {
  numRows = 0;
  /** [first, last] of the first stretches. */
  readonly ranges: [number, number][] = [];
  #last = -2;

  add(row: number): void {
    this.addRange(row, row);
  }

  addRange(first: number, last: number): void {
    this.numRows += last - first + 1;
    const previous = this.ranges[this.ranges.length - 1];
    if (previous !== undefined && previous[1] === this.#last && first === this.#last + 1) previous[1] = last;
    else if (this.ranges.length < MAX_RANGES) this.ranges.push([first, last]);
    this.#last = last;
  }
}
