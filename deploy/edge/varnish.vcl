# Varnish 7.1 or newer as the edge of streamcount: see docs/edge-proxies.md. Replace these names before you load it:
#
#   ${SC_NODE_1}     host and ${SC_NODE_1_PORT} port of --edge-listen of a node
#   ${SC_NODE_2}     host and ${SC_NODE_2_PORT} port of another node, or of the same
#   ${SC_KEY}        API key of scope edge
#   ${SC_ORIGIN}     host and ${SC_ORIGIN_PORT} port of the server of the media
#
# Varnish has no subrequests. So the request itself goes to a node first, as the check, and restarts if the node allows
# it. The parameter max_restarts must be 1 or more; its default is 4.
#
# If no node answers, viewers play without a limit. To answer 503 instead, delete the line that ends in "# fail open".
vcl 4.1;

import std;
import directors;

probe healthy {
    .url = "/edge/healthz";
    .interval = 1s;
    .timeout = 500ms;
    .window = 3;
    .threshold = 2;
    .initial = 2;
}

backend origin {
    .host = "${SC_ORIGIN}";
    .port = "${SC_ORIGIN_PORT}";
}

backend node1 {
    .host = "${SC_NODE_1}";
    .port = "${SC_NODE_1_PORT}";
    .connect_timeout = 200ms;
    .first_byte_timeout = 2s;
    .between_bytes_timeout = 2s;
    .probe = healthy;
}

backend node2 {
    .host = "${SC_NODE_2}";
    .port = "${SC_NODE_2_PORT}";
    .connect_timeout = 200ms;
    .first_byte_timeout = 2s;
    .between_bytes_timeout = 2s;
    .probe = healthy;
}

sub vcl_init {
    new nodes = directors.hash();
    nodes.add_backend(node1, 1.0);
    nodes.add_backend(node2, 1.0);
}

# sc_check turns the request of a viewer into a check. Every request is checked, and the paths of the profile decide what
# counts: req.url is not decoded, so a condition on "^/vod/" would miss "/%76od/" and "/x/../vod/".
sub sc_check {
    # The request of a viewer must not contain these headers.
    unset req.http.X-Sc;
    unset req.http.X-Sc-Cookie;
    unset req.http.X-Sc-Id;

    set req.http.X-Sc = "check";
    set req.http.X-Original-URI = req.url;
    set req.http.X-Original-Method = req.method;
    set req.http.X-Streamcount-Key = "${SC_KEY}";
    if (req.http.Authorization) {
        set req.http.X-Sc-Id = req.http.Authorization;
    } elsif (req.url ~ "[?&]token=") {
        set req.http.X-Sc-Id = regsub(req.url, "^.*[?&]token=([^&]*).*$", "\1");
    } elsif (req.http.Cookie ~ "(^|; *)sc=") {
        set req.http.X-Sc-Id = regsub(req.http.Cookie, "^(.*; *)?sc=([^;]*).*$", "\2");
    }
    if (req.method != "GET" && req.method != "HEAD" && !std.cache_req_body(64KB)) {
        return (synth(413)); # the body is kept for the server of the media
    }
    set req.url = "/edge/v1/vod/check";
    set req.method = "GET";
    set req.backend_hint = nodes.backend(req.http.X-Sc-Id); # all requests of a viewer reach the same node
    return (pass);
}

# sc_fetch turns an allowed request back into that of the viewer. Without credentials in the header and the query, all
# viewers share one object of the cache.
sub sc_fetch {
    set req.url = req.http.X-Original-URI;
    set req.method = req.http.X-Original-Method;
    set req.backend_hint = origin;
    unset req.http.Authorization;
    unset req.http.Cookie;
    set req.url = regsub(regsuball(req.url, "([?&])token=[^&]*&?", "\1"), "[?&]$", "");
}

sub vcl_recv {
    if (req.restarts == 0) {
        call sc_check;
    }
    call sc_fetch;
}

sub vcl_backend_fetch {
    unset bereq.http.X-Sc;
    unset bereq.http.X-Sc-Cookie;
    unset bereq.http.X-Sc-Id;
    if (bereq.backend == origin) {
        unset bereq.http.X-Streamcount-Key;
        unset bereq.http.X-Original-URI;
        unset bereq.http.X-Original-Method;
    }
}

sub vcl_deliver {
    if (req.http.X-Sc == "check") {
        if (resp.status == 200) {
            set req.http.X-Sc = "allowed";
            if (resp.http.Set-Cookie) {
                set req.http.X-Sc-Cookie = resp.http.Set-Cookie;
            }
        }
        if (resp.status >= 500) { set req.http.X-Sc = "allowed"; } # fail open
        if (req.http.X-Sc == "allowed") {
            return (restart);
        }
    } elsif (req.http.X-Sc-Cookie) {
        set resp.http.Set-Cookie = req.http.X-Sc-Cookie;
    }
}
