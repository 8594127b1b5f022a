/** What `work` comes to; rejects with `error` when that takes longer than `ms`. The work itself goes on, unheard. */
export async function withDeadline<T>(ms: number, error: () => Error, work: () => Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(error()), ms);
  });
  try {
    return await Promise.race([work(), late]);
  } finally {
    clearTimeout(timer);
  }
}
