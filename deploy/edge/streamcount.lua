-- The action "streamcount PROFILE open|closed" of HAProxy: see haproxy.cfg. It sends a check for each request. With "open",
-- a request is allowed if no node answers; with "closed", it is answered 503.
local key = os.getenv("SC_KEY")
local forwarded = {"authorization", "cookie", "user-agent"}
local returned = {"content-type", "retry-after", "www-authenticate", "x-streamcount-reason"}

-- credential returns the token or cookie by which the backend chooses a node.
local function credential(txn)
  local id = txn.sf:req_hdr("authorization")
  if id == "" then id = txn.sf:url_param("token") end
  if id == "" then id = txn.sf:req_cook("sc") end
  return id
end

local function headers(txn)
  local received, sent = txn.http:req_get_headers(), {}
  for _, name in ipairs(forwarded) do
    if received[name] then
      sent[name] = {}
      -- The lists that HAProxy returns begin at 0.
      for i = 0, #received[name] do sent[name][i + 1] = received[name][i] end
    end
  end
  sent["x-streamcount-key"] = {key}
  sent["x-forwarded-for"] = {txn.sf:src()}
  sent["x-original-uri"] = {txn.sf:pathq()}
  sent["x-original-method"] = {txn.sf:method()}
  sent["x-sc-id"] = {credential(txn)}
  return sent
end

local function check(txn, profile, outage)
  local answer = core.httpclient():get{
    url = "http://streamcount/edge/v1/" .. profile .. "/check",
    dst = "abns@streamcount",
    headers = headers(txn),
    timeout = 3000,
  }
  local status = answer and answer.status or 0
  if status == 200 then
    local cookie = answer.headers and answer.headers["set-cookie"]
    if cookie then txn:set_var("txn.sc_cookie", cookie[0]) end
    return
  end
  if status == 0 or status >= 500 then
    if outage == "open" then return end
    local reply = txn:reply{status = 503}
    reply:add_header("retry-after", "1")
    reply:add_header("x-streamcount-reason", "unavailable")
    txn:done(reply)
  end
  local reply = txn:reply{status = status, body = answer.body or ""}
  reply:add_header("cache-control", "no-store")
  for _, name in ipairs(returned) do
    if answer.headers[name] then reply:add_header(name, answer.headers[name][0]) end
  end
  txn:done(reply)
end

core.register_action("streamcount", {"http-req"}, check, 2)
