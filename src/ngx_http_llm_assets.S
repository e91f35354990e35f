/*
 * Copyright (C) The nginx-llm authors
 */

/* The files of src/dashboard as they are; `config` has their folder in -I. */

        .macro  asset name file
        .balign 16
        .globl  ngx_http_llm_dashboard_\name
        .hidden ngx_http_llm_dashboard_\name
ngx_http_llm_dashboard_\name:
        .incbin "dashboard/\file"
        .globl  ngx_http_llm_dashboard_\name\()_end
        .hidden ngx_http_llm_dashboard_\name\()_end
ngx_http_llm_dashboard_\name\()_end:
        .byte   0
        .endm

        .section .rodata

        asset   html,  dashboard.html
        asset   css,   dashboard.css
        asset   svg,   dashboard.svg
        asset   js,    dashboard.js
        asset   parts, dashboard.parts.js
        asset   judge, dashboard.judge.js

        .section .note.GNU-stack, "", %progbits
