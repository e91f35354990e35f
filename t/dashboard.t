# llm_status shows a browser a page and everybody else data, from the same
# location; what a browser has to keep to is said with each answer.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::HTTP;
use Test::More;

my $BROWSER = 'text/html,application/xhtml+xml,application/xml;q=0.9,'
    . 'image/avif,image/webp,*/*;q=0.8';

# what is accepted => what comes: without format=, and with format=html
my @ACCEPT = (
    [ undef,                                      'json', 'html' ],
    [ '',                                         'json', 'html' ],
    [ '*/*',                                      'json', 'html' ],
    [ $BROWSER,                                   'html', 'html' ],
    [ 'text/html',                                'html', 'html' ],
    [ 'TEXT/HTML',                                'html', 'html' ],
    [ 'text/html;level=1',                        'html', 'html' ],
    [ 'text/*',                                   'html', 'html' ],
    [ 'application/json',                         'json', 'json' ],
    [ 'application/*',                            'json', 'json' ],
    [ 'text/html, */*',                           'html', 'html' ],
    [ 'application/json, */*',                    'json', 'json' ],
    [ 'application/json, text/html',              'json', 'html' ],
    [ 'text/html, application/json',              'json', 'html' ],
    [ 'text/html;q=0.5, application/json',        'json', 'json' ],
    [ 'text/html, application/json;q=0.999',      'html', 'html' ],
    [ 'text/html ; q=0.9 , application/json;q=1', 'json', 'json' ],
    [ 'text/html;q=0',                            'json', 'html' ],
    [ 'text/html;q=0, */*',                       'json', 'json' ],
    [ 'application/json;q=0, */*',                'html', 'html' ],
    [ 'text/*;q=0.1, text/html;q=0.8, application/json;q=0.3',
        'html', 'html' ],
    [ 'text/html;q=x, application/json;q=0.9',    'html', 'html' ],
    [ 'text/html;q=0.0001, application/json;q=2', 'json', 'html' ],
    [ 'text/html;q=, ;;;, ,application/json,',    'json', 'html' ],
    [ 'text/htm, text/htmlx, xtext/html',         'json', 'html' ],
    [ 'image/png',                                'json', 'html' ],
    [ ',' x 2000 . 'text/html',                   'html', 'html' ],
);

my %TYPE = (
    html => 'text/html; charset=utf-8',
    json => 'application/json',
);

my %ASSET = (
    'dashboard.css'      => 'text/css; charset=utf-8',
    'dashboard.js'       => 'text/javascript; charset=utf-8',
    'dashboard.parts.js' => 'text/javascript; charset=utf-8',
    'dashboard.judge.js' => 'text/javascript; charset=utf-8',
    'dashboard.svg'      => 'image/svg+xml',
    'dashboard.html'     => 'text/html; charset=utf-8',
);

my $SOURCES = "$FindBin::Bin/../src/dashboard";

my $gw = LLM::Gateway->new(
    providers => [ a => '' ],
    server    => <<'CONF',
        large_client_header_buffers 4 16k;
        location /any/     { llm_status; }
        location = /html   { llm_status format=html; }
        location = /json   { llm_status format=json; }
        location = /graph  { llm_status format=prometheus; }
        location = /denied { llm_status; deny all; }
CONF
);


sub get {
    my ($uri, $accept, %how) = @_;

    return LLM::HTTP->new($gw->url)->request($how{method} // 'GET', $uri,
        close => 1,
        headers => $how{headers} // [ defined $accept
            ? (accept => $accept) : () ]);
}


sub slurp {
    my ($file) = @_;

    open my $fh, '<:raw', $file or die "$file: $!";
    local $/;
    return scalar <$fh>;
}


subtest 'who accepts what gets what' => sub {
    for my $row (@ACCEPT) {
        my ($accept, $any, $html) = @$row;
        my $name = length($accept // '-') > 70 ? 'a long one'
            : $accept // 'nothing said';

        for my $is ([ '/any/x', $any ], [ '/html', $html ]) {
            my $r = get($is->[0], $accept);

            is $r->status, 200, "$is->[0]: $name";
            is $r->header('content-type'), $TYPE{ $is->[1] }, "... $is->[1]";
            is $r->header('vary'), 'Accept', '... depends on that';
            ok $is->[1] eq 'json' ? $r->json->{providers}
                : $r->body =~ /^<!doctype html>/, '... and is it';
        }
    }
};

subtest 'several headers are one' => sub {
    my $r = get('/any/', undef, headers => [
        accept => 'application/json;q=0.5', accept => 'text/html' ]);
    is $r->header('content-type'), $TYPE{html}, 'the second is read, too';
};

subtest 'a format that was asked for does not depend on the caller' => sub {
    for my $accept (undef, $BROWSER) {
        my $r = get('/json', $accept);
        is $r->header('content-type'), $TYPE{json}, 'JSON';
        is $r->header('vary'), undef, 'whoever asks';

        like get('/graph', $accept)->header('content-type'),
            qr{^text/plain; version=0\.0\.4}, 'Prometheus';
    }

    is get('/json?dashboard.js')->header('content-type'), $TYPE{json},
        'and has no page';
};

subtest 'the files of the page are those of the sources' => sub {
    opendir my $dir, $SOURCES or die "$SOURCES: $!";
    is_deeply [ sort grep { !/^\./ } readdir $dir ], [ sort keys %ASSET ],
        'no other is there';

    for my $name (sort keys %ASSET) {
        for my $uri ('/any/', '/html') {
            my $r = get("$uri?$name", 'image/png');

            is $r->status, 200, "$uri?$name";
            is $r->header('content-type'), $ASSET{$name}, '... its type';
            ok $r->body eq slurp("$SOURCES/$name"), '... every byte';
        }
    }

    my $page = slurp("$SOURCES/dashboard.html");
    my @named = $page =~ /(?:src|href)="([^#"]+)"/g;
    is_deeply [ sort map { s/^\?//r } @named ],
        [ sort grep { $_ ne 'dashboard.html' } keys %ASSET ],
        'the page names all of them, and nothing else';
    unlike $page, qr/<style|\sstyle=|<script>|\son\w+=/, 'and is all markup';
};

subtest 'what is no file of it' => sub {
    for my $name (qw(dashboard. dashboard.j dashboard.jss dashboard.JS
        dashboard.js&x dashboard.%6as dashboard.../nginx.conf))
    {
        is get("/any/?$name", $BROWSER)->status, 404, $name;
    }

    for my $name (qw(dashboard x=dashboard.js Dashboard.js recents &)) {
        is get("/any/?$name")->header('content-type'), $TYPE{json},
            "$name is as good as nothing";
    }
};

subtest 'a browser is told what the page may do' => sub {
    for my $uri ('/any/', '/any/?dashboard.js', '/html') {
        for my $accept ($BROWSER, 'application/json') {
            my $r   = get($uri, $accept);
            my %csp = map { /^\s*(\S+)\s*(.*)$/ } split /;/,
                $r->header('content-security-policy');

            is $csp{'default-src'}, q{'none'}, "$uri: nothing";
            is $csp{$_}, q{'self'}, "... but its own $_"
                for qw(script-src style-src img-src connect-src);
            is $csp{$_}, q{'none'}, "... no $_"
                for qw(base-uri form-action frame-ancestors);
            is $csp{'require-trusted-types-for'}, q{'script'}, '... no markup';
            is $r->header('x-content-type-options'), 'nosniff', '... its type';
            is $r->header('x-frame-options'), 'DENY', '... no frames';
            is $r->header('referrer-policy'), 'no-referrer', '... no referrer';
            is $r->header('cache-control'), 'no-store', '... kept nowhere';
        }
    }
};

subtest 'HEAD, other methods, and who may not' => sub {
    for my $uri ('/any/', '/any/?dashboard.css', '/html') {
        my $get  = get($uri, $BROWSER);
        my $head = get($uri, $BROWSER, method => 'HEAD');

        is $head->status, 200, "HEAD $uri";
        is $head->body, '', '... has no body';
        is $head->header('content-length'), length $get->body,
            '... but its length';
        is $head->header($_), $get->header($_), "... and $_"
            for qw(content-type vary content-security-policy cache-control);
        is get($uri, $BROWSER, method => 'POST')->status, 405, "POST $uri";
    }

    is get($_, $BROWSER)->status, 403, $_
        for '/denied', '/denied?dashboard.js', '/denied?recent';
};

subtest 'the last hour is there where it is asked for' => sub {
    ok !get('/any/')->json->{recent}, 'not everybody wants it';

    for my $uri ('/any/?recent', '/json?recent', '/html?recent') {
        my $json = get($uri, 'application/json')->json;

        is $json->{recent}{interval}, 60, "$uri: by minutes";
        is scalar @{ $json->{providers}[0]{recent}{$_} }, 61, "... $_"
            for qw(calls failed throttled rejected duration);
        is scalar @{ $json->{routes}[0]{recent}{$_} }, 61, "... $_"
            for qw(requests failover rejected broken);
    }
};

$gw->done;

done_testing;
