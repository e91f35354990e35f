# nginx's cache in front of the providers: the same question is paid for once,
# and answered although every circuit is open.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use LLM::Gateway;
use LLM::HTTP;
use Test::More;
use Time::HiRes qw(sleep time);

use constant CHAT => '/chat/completions';

my $CACHE = 'proxy_buffering on; proxy_cache answers; proxy_cache_methods POST;'
    . ' proxy_cache_bypass $llm_stream; proxy_no_cache $llm_stream;'
    . ' add_header X-Cache $upstream_cache_status;'
    . ' add_header X-Peers "<$upstream_addr>" always;';
my $KEY   = ' proxy_cache_key $llm_request_key;';
my $STALE = ' proxy_cache_valid 200 1s;'
    . ' proxy_cache_use_stale error timeout invalid_header http_429;';

my $gw = LLM::Gateway->new(
    providers => [ map { $_ => 'circuit failure_threshold=2 open=30s;' }
        qw(a b) ],
    routes    => { llm => 'a b', other => 'a b', lone => 'b' },
    http      => 'client_body_buffer_size 1k; proxy_cache_path'
        . ' {{prefix}}/cache keys_zone=answers:1m levels=1:2;',
    locations => {
        '/v1/'     => "llm_pass llm; $CACHE $KEY $STALE",
        '/also/'   => "llm_pass llm; $CACHE $KEY $STALE",
        '/other/'  => "llm_pass other; $CACHE $KEY $STALE",
        '/shared/' => "llm_pass llm; $CACHE $STALE"
            . ' proxy_cache_key $llm_shared_request_key;',
        '/gate/'   => "llm_gate llm; proxy_pass https://llm; $CACHE $KEY"
            . $STALE,
        '/fresh/'  => "llm_pass llm; $CACHE $KEY proxy_cache_valid 200 1s;",
        '/long/'   => "llm_pass llm; $CACHE $KEY proxy_cache_valid 200 1h;",
        '/page/'   => "llm_pass llm; $CACHE $KEY $STALE"
            . ' error_page 503 = @page;',
        '/next/'   => "llm_pass lone; $CACHE $KEY $STALE"
            . ' error_page 503 = @next;',
        '@page'    => 'return 200 "try later";',
        '@next'    => 'llm_pass llm prefix=/next/;',
        '/asked/'  => 'auth_request /long/models; llm_pass llm;',
        '/key/'    => 'return 200 "$llm_request_key";',
    },
);
my ($a, $b) = map { $gw->provider($_) } qw(a b);

sub question { return { model => 'm',
    messages => [ { role => 'user', content => $_[0] } ], @_[1 .. $#_] } }

sub asked { my $n = $a->stats->{requests}; $a->forget; return $n }

sub cache { $_[0]->status . ' ' . ($_[0]->header('x-cache') // '-') }

# what has to be stale in the end, is asked first

my @stale = map { [ "/$_" . CHAT, question('of yesterday') ] }
    qw(v1 shared gate fresh page next);
my $big = question('x' x 3000);
$gw->ask(@$_) for @stale, [ '/v1' . CHAT, $big ],
    [ '/v1' . CHAT, question('failing') ];
my $filled = time;
asked();
$gw->moved;

subtest 'the same question is asked once' => sub {
    my $json = JSON::PP->new->utf8;
    my $body = '{"model":"m","temperature":0.5,"messages":'
        . '[{"role":"user","content":"caf\u00e9"}]}';
    my $r = $gw->ask('/long' . CHAT, undef, body => $body);
    is cache($r), '200 MISS';
    is $r->header('x-llm-provider'), 'a';
    is $gw->logged->{llm_outcome}, 'ok';
    my $answer = $r->body;

    for (
        [ 'byte for byte' => $body ],
        [ 'with blanks' => $body =~ s/([:,])/$1 \n/gr ],
        [ 'in another order' => '{"messages":[{"content":"caf\u00e9",'
            . '"role":"user"}],"temperature":0.5,"model":"m"}' ],
        [ 'without escapes' => $body =~ s/\\u00e9/\xc3\xa9/r ],
    ) {
        my ($name, $same) = @$_;
        $r = $gw->ask('/long' . CHAT, undef, body => $same);
        is cache($r), '200 HIT', $name;
        is $r->body, $answer;
        is $r->header('x-llm-provider'), undef, 'nobody has answered';
        is $r->header('x-llm-attempts'), '0';
    }
    is $gw->logged->{llm_outcome}, 'cached', 'the log says so';
    is asked(), 1;
    is $gw->moved, 'a successful=1', 'a hit is no call';

    for my $size (10, 3000) {
        my $long = question('y' x $size);
        is cache($gw->ask('/long' . CHAT, $long)), '200 MISS', "$size bytes";
        my @pieces = $json->pretty->encode($long) =~ /(.{1,700})/gs;
        is cache($gw->ask('/long' . CHAT, undef, chunked => \@pieces)),
            '200 HIT', 'in pieces';
        $r = $gw->h2('/long' . CHAT, $long);
        is cache($r), '200 HIT', 'over HTTP/2';
    }
};

subtest 'another question is another one' => sub {
    my @ask = ('/long' . CHAT, question('what?'));
    is cache($gw->ask(@ask)), '200 MISS';
    is cache($gw->ask(@ask)), '200 HIT';
    is cache($gw->ask(@ask[0, 1], headers => { 'x-team' => 'b' })),
        '200 HIT', 'other headers do not matter';

    my %other = (
        'a text'      => [ '/long' . CHAT, question('what!') ],
        'a parameter' => [ '/long' . CHAT, question('what?', top_p => 1) ],
        'a model'     => [ '/long' . CHAT, question('what?', model => 'n') ],
        'a path'      => [ '/long/responses', question('what?') ],
        'arguments'   => [ '/long' . CHAT . '?beta=1', question('what?') ],
    );
    is cache($gw->ask(@{ $other{$_} })), '200 MISS', $_ for sort keys %other;

    $gw->ask('/v1' . CHAT, question('where?'));
    is cache($gw->ask('/also' . CHAT, question('where?'))), '200 HIT',
        'another location of the same route is the same';
    is cache($gw->ask('/other' . CHAT, question('where?'))), '200 MISS',
        'another route is not';

    my @raw = (headers => { 'content-type' => 'audio/mpeg' });
    is cache($gw->ask('/long/audio', undef, @raw, body => "\0\1")),
        '200 MISS', 'what is no JSON';
    is cache($gw->ask('/long/audio', undef, @raw, body => "\0\1")),
        '200 HIT';
    is cache($gw->ask('/long/audio', undef, @raw, body => "\0\2")),
        '200 MISS', 'is compared byte for byte';
};

subtest 'callers share answers only where they are told to' => sub {
    for my $header (qw(authorization x-api-key api-key cookie)) {
        my @as = map { [ headers => { $header => "$header-$_" } ] } 1, 2;
        my $what = question("secret of $header");
        for my $place (qw(long shared)) {
            is cache($gw->ask("/$place" . CHAT, $what, @{ $as[0] })),
                '200 MISS', "$header at /$place/";
            is cache($gw->ask("/$place" . CHAT, $what, @{ $as[0] })),
                '200 HIT', 'the same caller';
            is cache($gw->ask("/$place" . CHAT, $what, @{ $as[1] })),
                $place eq 'long' ? '200 MISS' : '200 HIT', 'another one';
        }
    }

    my $files = `grep -rl 'authorization-1' '@{[$gw->nginx->prefix]}/cache'`;
    is $files, '', 'no secret is on disk';
    is $gw->ask('/key/', undef, method => 'GET')->body
        =~ /^[0-9a-f]{64}$/, 1, 'it has a value wherever it is used';
};

subtest 'errors are not kept' => sub {
    my $calm = LLM::Gateway->new(
        providers => [ a => 'circuit off;', b => 'circuit off;' ],
        sources   => { a => $a, b => $b },
        http      => 'proxy_cache_path {{prefix}}/cache keys_zone=answers:1m;',
        locations => { '/' => "llm_pass llm; $CACHE $KEY"
            . ' proxy_cache_valid 200 1h;' },
    );

    for my $status (400, 401, 404, 429, 500, 503) {
        my @ask = ('/v1' . CHAT, question("error $status"));
        $_->behave($status) for $a, $b;
        my $r = $calm->ask(@ask);
        cmp_ok $r->status, '>=', 400, "$status is told as " . $r->status;
        $_->behave('ok') for $a, $b;
        is cache($calm->ask(@ask)), '200 MISS';
    }

    my @ask = ('/v1' . CHAT, question('cut'));
    $a->behave({ body => '{"cut":', headers => { 'content-length' => 99 },
        framing => 'close' });
    ok !$calm->ask(@ask)->complete, 'an answer that breaks off';
    $a->behave('ok');
    is cache($calm->ask(@ask)), '200 MISS';
    $calm->done;
};

subtest 'streams are not kept, and not held back' => sub {
    my @ask = ('/long' . CHAT, question('flow', stream => \1));
    for (1, 2) {
        $a->behave({ pace => 0.2, text => [ 'one ', 'two ' ] });
        my $call = $gw->call(@ask);
        ok $call->read_until(qr/one /), 'the first event';
        unlike $call->answer->body, qr/two /, 'comes alone';
        my $r = $call->finish;
        like $r->body, qr/two .*\[DONE\]/s;
        is $r->header('x-cache'), 'BYPASS';
    }

    my $bare = LLM::Gateway->new(
        providers => [ a => '' ],
        sources   => { a => $a },
        http      => 'proxy_cache_path {{prefix}}/cache keys_zone=answers:1m;',
        locations => { '/' => 'llm_pass llm; proxy_buffering on;'
            . ' proxy_cache answers; proxy_cache_methods POST;'
            . ' proxy_cache_valid 200 1h; proxy_cache_key $llm_request_key;'
            . ' add_header X-Cache $upstream_cache_status;' },
    );
    is cache($bare->ask(@ask)), '200 MISS', 'also without proxy_no_cache'
        for 1, 2;
    $bare->done;
    $a->behave('ok');
};

subtest 'a provider that fails is covered for' => sub {
    expire();
    $gw->moved;
    $_->behave(503) for $a, $b;
    my $r = $gw->ask('/v1' . CHAT, question('failing'));
    is cache($r), '200 STALE';
    is $r->header('x-llm-attempts'), '2', 'both were asked';
    is $gw->logged->{llm_outcome}, 'cached';
    is $gw->moved, 'a failed=1, b failed=1';

    $gw->ask('/v1' . CHAT);
    is_deeply [ map { $gw->status($_)->{state} } qw(a b) ],
        [ qw(open open) ], 'until their circuits are open';
    $gw->moved;
};

subtest 'every circuit is open' => sub {
    $_->forget for $a, $b;

    for my $place (qw(v1 shared gate page)) {
        my $r = $gw->ask("/$place" . CHAT, question('of yesterday'));
        is cache($r), '200 STALE', $place;
        is $r->json->{object}, 'chat.completion';
        is $r->header($_), undef, "no $_"
            for qw(retry-after retry-after-ms x-should-retry x-llm-provider);
        is $r->header('x-llm-attempts'), '0';
        my $logged = $gw->logged;
        is $logged->{llm_outcome}, 'cached';
        is $logged->{llm_reject}, '-';
    }
    is cache($gw->ask('/v1' . CHAT, $big)), '200 STALE', 'a large one';
    is cache($gw->h2('/v1' . CHAT, question('of yesterday'))), '200 STALE',
        'over HTTP/2';
    is cache($gw->ask('/long' . CHAT, question('what?'))), '200 HIT',
        'what is fresh needs nobody';
    $gw->moved;

    my $http = LLM::HTTP->new($gw->url);
    for my $place (qw(v1 gate shared fresh)) {
        my $r = $http->post("/$place" . CHAT, question('new'));
        refused($r, "another question at /$place/");
    }
    refused($http->post('/fresh' . CHAT, question('of yesterday')),
        'a stale answer that must not be used');
    is $http->connections, 1, 'and the connection goes on';
    refused($gw->h2('/v1' . CHAT, question('new')), 'over HTTP/2');
    refused($gw->ask('/v1' . CHAT, question('new', stream => \1)),
        'a stream');
    refused($gw->ask('/v1' . CHAT, undef, chunked => [ '{"model":', \0.05,
        '"m"}' ]), 'a body that was waited for');
    is $gw->moved, 'a rejected=8, b rejected=8', 'each is counted once';

    my $r = $gw->ask('/page' . CHAT, question('new'));
    is $r->body, 'try later', 'an error_page of the user\'s';
    $r = $gw->ask('/next' . CHAT, question('new'));
    refused($r, 'another gate behind an error_page');
    $r = $gw->ask('/asked/', undef, method => 'GET');
    is $r->status, 500, 'a subrequest is refused as well';

    is $_->stats->{connections}, 0, 'nobody was connected to' for $a, $b;
    $r = $gw->ask('/v1' . CHAT, undef, body => '{"model":');
    is $r->status, 400, 'what is no request is none here';
    $gw->moved;
};

subtest 'a permit is for who needs one' => sub {
    my $one = LLM::Gateway->new(
        providers => [ a => 'circuit failure_threshold=1'
            . ' success_threshold=1 open=100ms;' ],
        sources   => { a => $a },
        http      => 'proxy_cache_path {{prefix}}/cache keys_zone=answers:1m;',
        locations => { '/' => "llm_pass llm; $CACHE $KEY"
            . ' proxy_cache_valid 200 1h;' },
    );
    $a->behave('ok', 503);
    $one->ask('/v1' . CHAT, question('kept'));
    $one->ask('/v1' . CHAT, question('lost'));
    is $one->moved, 'a successful=1 failed=1';
    ok $one->wait_for(sub { !$one->status('a')->{time_until_retry} });

    $a->behave({ delay => 0.3 });
    is cache($one->ask('/v1' . CHAT, question('kept'))), '200 HIT';
    is $one->status('a')->{state}, 'open', 'a hit is no probe';
    my $probe = $one->call('/v1' . CHAT, question('new'));
    ok $one->wait_for(sub { $one->status('a')->{half_open_calls} });
    is cache($one->ask('/v1' . CHAT, question('kept'))), '200 HIT',
        'and needs none';
    is $one->ask('/v1' . CHAT, question('newer'))->status, 503;
    is $probe->finish->status, 200;
    is $one->status('a')->{state}, 'closed';
    $one->done;
};

done_testing;


sub refused {
    my ($r, $name) = @_;

    my $error = eval { $r->json->{error} } // {};
    ok $r->status == 503 && $error->{code} eq 'all_circuits_open'
        && $error->{message} =~ /^Every provider refuses for now: /
        && $r->header('content-type') eq 'application/json'
        && $r->header('retry-after') =~ /^\d+$/
        && $r->header('retry-after-ms') =~ /^\d+$/
        && $r->header('x-llm-attempts') eq '0'
        && ($r->header('x-peers') // '<>') eq '<>', $name
        or diag($r->status, ' ', $r->body);
}


sub expire {
    my $wait = $filled + 2.1 - time;
    sleep $wait if $wait > 0;
}
