/** Events of the library behind core's EventOverlap (design 2.9). */
import type { Phase, StreamOptions } from "../../core/backend.ts";
import { EventOverlap } from "../../core/event.ts";
import { native } from "./errors.ts";
import type { NativeAddon, NativeEvent, NativeStream } from "./native.ts";

/** `EventOverlap.native` of this backend. */
export class CudaEvent {
  readonly addon: NativeAddon;
  readonly ref: NativeEvent;

  constructor(addon: NativeAddon, ref: NativeEvent) {
    this.addon = addon;
    this.ref = ref;
  }

  /** True when the devices have done everything the event stands for. */
  query(): Promise<boolean> {
    return native(() => this.addon.eventQuery(this.ref));
  }

  /** Waits for the devices; rejects with what they found (an expert id out of range in device-resident routing). */
  synchronize(): Promise<void> {
    return native(() => this.addon.eventWait(this.ref));
  }
}

/** Waits on the devices: the compute streams of the group's ranks come after the event; the host goes on. */
export function deviceEvent(addon: NativeAddon, ref: NativeEvent): EventOverlap {
  return new EventOverlap(() => native(() => addon.eventStreamWait(ref)), new CudaEvent(addon, ref));
}

/** For outputs in host memory: done when they are there. */
export function hostEvent(addon: NativeAddon, ref: NativeEvent, done: Promise<void>): EventOverlap {
  return new EventOverlap(done, new CudaEvent(addon, ref));
}

/**
 * Stream arguments for the library. An event of this library goes along, so that the device waits for it; any other is
 * waited for here.
 */
export async function nativeStream(addon: NativeAddon, options: StreamOptions): Promise<NativeStream> {
  const { previousEvent } = options;
  const mine = previousEvent?.native instanceof CudaEvent && previousEvent.native.addon === addon;
  if (!mine) await previousEvent?.currentStreamWait();
  return {
    previousEvent: mine ? (previousEvent.native as CudaEvent).ref : null,
    asyncFinish: options.asyncFinish === true,
    allocateOnCommStream: options.allocateOnCommStream === true,
    numSms: options.numSms ?? 0,
  };
}

/** Times of a finished operation on the clock of core/clock.ts: the devices' own, from the moment of the call. */
export async function phasesOf(addon: NativeAddon, ref: NativeEvent, calledUs: number): Promise<Phase[]> {
  const phases = await addon.eventPhases(ref);
  return phases.map(({ rank, name, startUs, durationUs, waiting, srcRank }) => ({
    rank,
    name,
    startUs: calledUs + startUs,
    durationUs,
    waiting,
    ...(srcRank >= 0 ? { srcRank } : {}),
  }));
}
