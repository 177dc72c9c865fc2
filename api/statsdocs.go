package api

import (
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/access"
	"streamcount/api/apitype"
)

func statsDoc() opDoc {
	return opDoc{
		id: "stats", does: access.ReadTotals, tag: tagNode, summary: "Totals",
		about: "Totals over all users, as this node sees them, and what this node has done since it started.",
		reply: apitype.Stats{
			Streams: 3, Users: 2, UsersAtLimit: 1, Regions: map[string]int{"local": 3},
			Admitted: 40, Refused: 2, Expired: 1,
			Node:  apitype.Node{ID: "node-1", Region: "local", Version: "1.0.0", StartedAt: exampleTime(0)},
			Rates: apitype.Rates{Starts: 1.2, Stops: 1.1, Refusals: 0.1, Heartbeats: 0.9},
			Latency: apitype.Latency{
				Start:     apitype.Percentiles{Count: 72, P50: 2.1, P95: 3.4, P99: 6.2},
				Heartbeat: apitype.Percentiles{Count: 54, P50: 0.2, P95: 0.4, P99: 1.1},
				Stop:      apitype.Percentiles{Count: 66, P50: 1.9, P95: 3.1, P99: 5.5},
			},
			Nodes: []apitype.NodeReport{{
				Node:    apitype.Node{ID: "node-1", Region: "local", Version: "1.0.0", StartedAt: exampleTime(0)},
				Address: "10.0.0.7:3000", Admitted: 40, Refused: 2, ReportedAt: exampleTime(0),
			}},
			Leader: "node-1", Shards: []apitype.Shard{{Name: "default", Leader: "node-1", Members: 1, Streams: 3,
				Etcd: []apitype.EtcdMember{{Name: "node-1", Leader: true, Version: "3.7.3", DBSize: 65536, DBInUse: 40960,
					Alarms: []string{}}}}},
			Revision: 1207,
		},
	}
}

func historyDoc() opDoc {
	return opDoc{
		id: "history", does: access.ReadTotals, tag: tagNode, summary: "Totals of the last hour",
		about: "What this node noted of the totals every ten seconds, for up to an hour, and what happened in between. A " +
			"node that has just started knows little.",
		reply: apitype.History{EverySeconds: 10, Samples: []apitype.Sample{{
			At: exampleTime(0), Streams: 3, Users: 2, UsersAtLimit: 1, Starts: 12, Stops: 11, Refusals: 1,
			Regions: map[string]int{"local": 3},
		}}},
	}
}

func concurrencyDoc() opDoc {
	return opDoc{
		id: "concurrency", does: access.ReadTotals, tag: tagNode, summary: "How many streams users have at once",
		about: "How many users had one, two, three or more streams at once today (UTC), or since this node started, and how " +
			"many were refused by it, at which limit: what one needs to know to set a limit.",
		reply: apitype.Concurrency{
			Since:   exampleTime(0),
			Reached: []apitype.ReachedCount{{Streams: 1, Users: 120}, {Streams: 2, Users: 31}, {Streams: 3, Users: 9}},
			Refused: []apitype.RefusedCount{{Limit: 3, Users: 4, Starts: 17}},
		},
	}
}

func busiestDoc() opDoc {
	return opDoc{
		id: "busiest", does: access.ReadTotals, tag: tagNode, summary: "The busiest users",
		about: "The users with the most streams, as this node knows them, at most a few seconds ago: the busiest first, then " +
			"by name. With `prefix` also a way to find a user.",
		reply: apitype.BusiestUsers{Users: []apitype.BusyUser{{UserID: "maya", Streams: 3, Limit: 3}}, More: true},
	}
}

// eventsOperation describes the stream of events.
func eventsOperation(a huma.API) *huma.Operation {
	op := opDoc{
		id: "events", does: access.ReadTotals, tag: tagNode, summary: "Follow what happens",
		about: "Server-sent events of starts, stops, expiries and refusals, as they happen; refusals are those of the node " +
			"that answers. `data` is an Event. Each event's `id` says where it stands: sent back as Last-Event-ID, as browsers " +
			"do by themselves, it leads to what happened since, on any node. An event `gap` tells that something was missed, " +
			"because it is too long ago or was read too slowly: look at the totals again. A comment every 15 seconds keeps the " +
			"connection open; after half an hour it ends, and is to be made again.",
	}.operation(http.MethodGet, "/api/v1/events")
	event := a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[apitype.Event](), true, "Event")
	op.Parameters = []*huma.Param{
		{Name: "user", In: "query", Description: "Only the events of this user, and gaps.", Schema: &huma.Schema{
			Type: huma.TypeString, Pattern: apitype.UserPattern, Examples: []any{"maya"}}},
		{Name: "after", In: "query", Description: "The id of the last event that was seen.", Schema: cursorSchema()},
		{Name: "Last-Event-ID", In: "header", Description: "The same; it goes before the query.", Schema: cursorSchema()},
	}
	example := "id: 1207~k3xqa.12\nevent: stop\ndata: {\"type\":\"stop\",\"at\":\"2026-05-04T20:15:00.250Z\",\"revision\":1207," +
		"\"userId\":\"maya\",\"streams\":1,\"limit\":3,\"reason\":\"stopped\"}\n\n"
	op.Responses["200"] = &huma.Response{
		Description: "Events until the connection ends. Each has as its data the JSON of " + event.Ref + ".",
		Content: map[string]*huma.MediaType{"text/event-stream": {
			Schema: &huma.Schema{Type: huma.TypeString}, Example: example,
		}},
	}
	for _, status := range append(op.Errors, http.StatusInternalServerError) {
		op.Responses[strconv.Itoa(status)] = &huma.Response{
			Content: map[string]*huma.MediaType{problemType: {Schema: problemSchema()}},
		}
	}
	return &op
}

func cursorSchema() *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Examples: []any{"1207~k3xqa.12"}}
}
