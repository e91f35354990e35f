
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_gate.h"


/*
 * A call has ended, and whoever waits may want to know.  Those who end calls
 * need not know who waits: that is an event, which is handled when what runs
 * now, whatever it is, has come to its end.
 */


/* of this worker; NULL: nobody waits */

static ngx_event_t  *ngx_http_llm_wake_event;


void
ngx_http_llm_wake_by(ngx_event_t *ev)
{
    ngx_http_llm_wake_event = ev;
}


void
ngx_http_llm_wake(void)
{
    if (ngx_http_llm_wake_event) {
        ngx_post_event(ngx_http_llm_wake_event, &ngx_posted_events);
    }
}
