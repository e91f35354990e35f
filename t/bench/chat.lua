-- wrk: POSTs a chat completion, the file in $BODY; prints what is counted

local file = assert(io.open(os.getenv("BODY"), "rb"))

wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer the-callers-own-key"

file:close()


function done(summary)
    local e = summary.errors

    print(string.format("requests %d us %d errors %d statuses %d",
                        summary.requests, summary.duration,
                        e.connect + e.read + e.write + e.timeout, e.status))
end
