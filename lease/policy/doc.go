// Package policy decides which streams of a user may run. It is pure: it
// depends neither on etcd nor on HTTP, and has no state.
//
// # Plans with several limits
//
// A plan limits all streams of a user, and may have further limits of those streams that
// fulfil conditions. All of them must hold. [Decide] decides on a start in these steps:
//
//  1. The stream of the start's own session ends, and so do the streams that the start
//     replaces. Only the limits whose conditions the new stream fulfils are considered, so
//     a lowered limit of television sets never stops a phone. If a limit is per value of
//     an attribute, only streams with the value of the new stream count for it.
//  2. A limit holds if the remaining streams and the new one count for no more than it
//     allows. For a session that continues, it is enough that they count for no more than
//     the user's streams did before.
//  3. If a limit does not hold, the streams whose leases have expired end.
//  4. If a limit does not hold and starts may not request that it ends streams, or this
//     start does not request it, the start is rejected. An eviction for one limit never
//     satisfies another that denies.
//  5. Otherwise streams end until all limits hold. The next one is that which counts for
//     the most limits that do not hold, of these one with the lowest priority, and of these
//     the oldest. If the limit counts devices, content, profiles or networks, all streams of
//     the same one end. A limit with [ReplaceLowest] ends only streams of a lower priority
//     than that of the new one. Finally, in reverse order, each of these streams remains if
//     all limits hold with it.
//  6. Limits with Observe reject nothing. The decision names those that do not hold.
package policy
