# What stands in examples/ can be copied: nginx takes each file as it is, and
# does with it what the file promises.  Only endpoints, keys and paths of logs
# are replaced.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Basename qw(basename dirname);
use JSON::PP ();
use LLM::HTTP;
use LLM::Nginx;
use LLM::Provider;
use LLM::TLS;
use List::Util qw(max);
use Test::More;
use Time::HiRes qw(sleep time);

use constant {
    CHAT     => '/v1/chat/completions',
    MESSAGES => '/v1/messages',
    PATIENCE => 10,
};

my $root = dirname($FindBin::Bin);
my @files = grep { !/quickstart/ } map { basename($_) }
    glob "$root/examples/*.conf";
my $has_node = system('node -e 0 2> /dev/null') == 0;

my ($nginx, %provider);

subtest 'the page tells of every file, and what is in it' => sub {
    my $page = slurp('examples/README.md');
    my %told = $page =~ /^\| \[([\w.]+)\]\(\1\) \|.*\| (.*) \|$/mg;

    is_deeply [ sort keys %told ], \@files, 'files';
    for my $file (sort keys %told) {
        my $text = slurp("examples/$file") =~ s/#.*//gr;
        for my $directive ($told{$file} =~ /`(.*?)`/g) {
            my @words = map { quotemeta } split ' ', $directive;
            my $pattern = join '\b.*?', @words;
            like $text, qr/(?:^|\{)\s*$pattern/m, "$file has $directive";
        }
    }
    is_deeply [ grep { !-e "$root/examples/$_" }
        $page =~ /\]\((?!http)([^)#]+)/g ], [], 'links lead somewhere';
};

subtest 'production.conf' => sub {
    my $tls  = LLM::TLS->new('llm.example.com');
    my $hook = LLM::Provider->new(name => 'hook');
    $hook->behave({ status => 200, body => 'ok' });
    start('production.conf', sub {
        s{file:/etc/nginx/keys/slack-webhook}{$hook->url . '/hook'}e;
        s{file:(/etc/nginx/keys/(\w+))}{"file:" . $nginx->file("keys/$2",
            "the-key-of-$2\n")}ge;
        s{/etc/nginx/keys/callers.map}{$nginx->file('callers.map',
            qq("Bearer alices-secret" alice;\n))}e;
        s{/etc/nginx/tls/llm.example.com.crt}{$tls->cert}e;
        s{/etc/nginx/tls/llm.example.com.key}{$tls->key}e;
        s{/var/lib/nginx/llm/}{{{prefix}}/};
        s{listen 443 }{listen 127.0.0.1:{{port:tls}} };
    }, workers => 2);

    my $gateway = 'https://127.0.0.1:' . $nginx->port('tls');
    my $call = sub {
        my ($method, $uri, %more) = @_;
        return LLM::HTTP->new($gateway, ca => $tls->ca,
            sni => 'llm.example.com')->request($method => $uri, close => 1,
            headers => { authorization => 'Bearer alices-secret' }, %more);
    };
    my $chat = sub {
        return $call->(POST => CHAT, json => prompt('Hello'), @_);
    };

    ok wait_for(sub {
        (status('gemini')->{probe}{result} // '') eq 'success';
    }), 'providers are probed';

    is from($chat->()), 'openai', 'a caller with a key';
    my ($got) = grep { $_->{method} eq 'POST' } $provider{openai}->requests;
    is $got->{headers}{authorization}[0], 'Bearer the-key-of-openai';
    for my $uri (CHAT, '/v1/models', '/batch/v1/chat/completions') {
        is $call->(GET => $uri, headers => {})->status, 401,
            "$uri: nobody else";
    }
    is_deeply [ sort map { $_->{id} }
        @{ $call->(GET => '/v1/models')->json->{data} } ],
        [qw(gpt-4.1 gpt-4.1-mini)], 'the models';
    is $call->(GET => $_)->status, 404, "callers have no $_"
        for qw(/status /metrics /llm/providers);
    is from($call->(POST => '/batch/v1/chat/completions',
        json => prompt('Hello'))), 'deepseek', 'a batch goes to the cheapest';

    my ($line) = grep { /alice/ } split /\n/, logged('llm.log');
    is JSON::PP::decode_json($line)->{provider}, 'openai', 'the log';
    unlike logged('llm.log'), qr/secret/, 'has no key';

    $provider{openai}->behave(503);
    is from($chat->()), 'gemini', 'who stands in';
    ($got) = grep { $_->{method} eq 'POST' } $provider{gemini}->requests;
    is JSON::PP::decode_json($got->{body})->{model}, 'gemini-2.5-pro',
        'with its own model';
    $provider{gemini}->behave(503);
    is from($chat->()), 'deepseek', 'and behind it';

    # what operators see
    ok wait_for(sub { $chat->(); status('openai')->{state} eq 'open' });
    like $nginx->client->get('/metrics')->body,
        qr/^llm_circuit_state\{provider="openai",state="open"} 1$/m;
    is $nginx->client->post('/llm/providers/deepseek', { action => 'observe' })
        ->status, 200, 'an order';
    ok wait_for(sub {
        grep { $_->{body} =~ /openai.*is out of service/ } $hook->requests;
    }), 'people are told';

    # over a restart
    $nginx->quit;
    $nginx->start;
    is status('openai')->{state}, 'open', 'it goes on where it was';
    is status('deepseek')->{admin}, 'observe';
    the_end();
};

subtest 'tiers.conf' => sub {
    my ($burst) = start('tiers.conf', workers => 1)
        =~ /zone=free +burst=(\d+)/;
    my %key = (gold => 'alices', silver => 'bobs', free => 'carols');
    my $ask = sub {
        my ($tier, $data) = @_;
        return ask(CHAT, $data, authorization => "Bearer $key{$tier}-secret");
    };

    $provider{$_}->behave({ delay => 0.1 }) for qw(openai deepseek);
    my @gold = map { from($ask->('gold')) } 1 .. 8;
    is_deeply [ sort @gold[ 0 .. 2 ] ], [qw(deepseek gemini openai)],
        'gold: nobody is known yet';
    is_deeply [ @gold[ 3 .. 7 ] ], [ ('gemini') x 5 ], 'then the fastest';
    $provider{$_}->behave('ok') for keys %provider;

    is from($ask->('silver')), 'deepseek', 'silver: the cheapest';
    $provider{deepseek}->behave(503);
    my $long = prompt('Tell me more. ' x 200, max_tokens => 10);
    is from($ask->('silver', $long)), 'openai',
        'then the cheapest of those within the budget';
    $provider{openai}->behave(503);
    is from($ask->('silver', $long)), 'gemini', 'and who is beyond it, last';

    my $r = $ask->('free');
    is $r->status, 502, 'free: nobody stands in';
    like $r->json->{error}{message}, qr/deepseek \(status 503\)/;
    $provider{$_}->behave('ok') for keys %provider;

    # the one above was the first
    is_deeply [ map { $ask->('free')->status } 0 .. $burst ],
        [ (200) x $burst, 429 ], 'free: only so many requests';
    is $ask->('free')->json->{error}{code}, 'rate_limit_exceeded',
        'told as JSON';
    is $ask->($_)->status, 200, "$_ has more" for qw(silver gold);

    for my $key ('Bearer nobodys-secret', '') {
        $r = ask(CHAT, undef, authorization => $key);
        is $r->status, 401, "no caller: '$key'";
        is $r->json->{error}{type}, 'authentication_error';
    }
    unlike $nginx->error_log, qr/unknown strategy|invalid budget/;
    the_end();
};

subtest 'cost.conf' => sub {
    start('cost.conf');

    my $long  = prompt('Tell me more. ' x 200, max_tokens => 10);
    my $short = prompt('Tell me more.');
    my @long  = qw(deepseek openai-mini gemini openai);

    for my $case ([ $short => @long ], [ $long => @long ]) {
        my ($data, @order) = @$case;
        is_deeply [ chain(CHAT, $data, @order) ], \@order,
            'the cheapest, then the dearer ones';
    }

    # 1000 in, of them 500 from its cache, and 2000 out
    $provider{$_}->behave(503) for qw(deepseek openai-mini gemini);
    $provider{openai}->behave({ body => { choices => [], usage => {
        prompt_tokens => 1000, completion_tokens => 2000,
        prompt_tokens_details => { cached_tokens => 500 } } } });
    is from(ask(CHAT, $short)), 'openai';
    my $cost = (500 * 2 + 500 * 0.5 + 2000 * 8) / 1e6;
    ok wait_for(sub {
        logged('llm.log') =~ /from openai: tokens 1000 \+ 2000, $cost USD$/m;
    }), "the log tells the cost, $cost" or diag(logged('llm.log'));
    cmp_ok status('openai')->{cost}, '>=', $cost, 'the status has the sum';

    # without the budget, little output makes another one cheaper
    start('cost.conf', sub { s/llm_budget [^;]*;// });
    my @cheap = qw(deepseek gemini openai-mini openai);
    is_deeply [ chain(CHAT, $long, @cheap) ], \@cheap,
        'the budget has a say';
    the_end();
};

subtest 'latency.conf' => sub {
    my ($limit) = start('latency.conf', workers => 1)
        =~ /first_token=(\d+)s/;
    my $stream = prompt('Hello', stream => \1);
    my $whole  = join '', map { "token$_ " } 1 .. 3;

    # the window is waited for, so the first answers are no streams
    $provider{deepseek}->behave({ delay => 0.1 });
    $provider{openai}->behave({ delay => 0.2 });
    ask(CHAT) for 1 .. 3;
    is_deeply [ map { from(ask(CHAT)) } 1 .. 5 ], [ ('gemini') x 5 ],
        'the fastest is asked';
    $provider{$_}->behave('ok') for keys %provider;

    $provider{gemini}->behave({ pace => 0.1, reset => '2 tokens' });
    my $r = ask(CHAT, $stream);
    is from($r), 'deepseek', 'what breaks in the window is begun anew';
    is text($r), $whole, 'and the caller sees nothing of it';

    $provider{gemini}->behave({ first => 1.7 });
    my @slow = map { started(CHAT, $stream) } 1 .. 3;
    is_deeply [ map { from($_->finish) } @slow ], [ ('gemini') x 3 ],
        'slow answers are passed on';
    is status('gemini')->{state}, 'open', 'and open the circuit';

    $provider{deepseek}->behave({ first => 60 });
    $r = ask(CHAT, $stream);
    is from($r), 'openai', 'no first token in time: the next one';
    is text($r), $whole;
    cmp_ok $r->time, '>', $limit, 'after first_token';
    the_end();
};

subtest 'chains.conf' => sub {
    start('chains.conf');
    my @cases = (
        [ CHAT, 'gpt-4.1',
            openai   => 'gpt-4.1',
            gemini   => 'gemini-2.5-pro',
            deepseek => 'deepseek-chat' ],
        [ CHAT, 'gpt-4.1-mini',
            openai   => 'gpt-4.1-mini',
            gemini   => 'gemini-2.5-flash',
            deepseek => 'deepseek-chat' ],
        [ CHAT, 'claude-sonnet-5-5',
            anthropic => 'claude-sonnet-5-5',
            openai    => 'gpt-4.1',
            deepseek  => 'deepseek-chat' ],
        [ CHAT, 'claude-haiku-5-5',
            anthropic => 'claude-haiku-5-5',
            openai    => 'gpt-4.1-mini',
            deepseek  => 'deepseek-chat' ],
        [ MESSAGES, 'claude-sonnet-5-5',
            'anthropic-messages' => 'claude-sonnet-5-5',
            'deepseek-messages'  => 'deepseek-chat' ],
    );
    my %base = (
        openai => '/v1', deepseek => '/v1', anthropic => '/v1',
        gemini => '/v1beta/openai', 'anthropic-messages' => '/v1',
        'deepseek-messages' => '/anthropic/v1',
    );
    my %variable = (
        openai => 'OPENAI', gemini => 'GEMINI', deepseek => 'DEEPSEEK',
        anthropic => 'ANTHROPIC', 'anthropic-messages' => 'ANTHROPIC',
        'deepseek-messages' => 'DEEPSEEK',
    );

    for (@cases) {
        my ($uri, $model, @chain) = @$_;
        my @names = @chain[ grep { !($_ % 2) } 0 .. $#chain ];
        my %known_as = @chain;

        $_->forget for values %provider;
        my @seen = chain($uri, prompt('Hello', model => $model), @names);
        is_deeply \@seen, \@names, "$uri of $model";

        for my $name (@names) {
            my ($got) = $provider{$name}->requests;
            my $key = key_of("$variable{$name}_API_KEY");
            my $headers = $got->{headers};

            is $got->{uri}, $base{$name} . $uri =~ s/^\/v1//r, "$name: path";
            is JSON::PP::decode_json($got->{body})->{model},
                $known_as{$name}, "$name: model";
            is_deeply [ $headers->{authorization}, $headers->{'x-api-key'} ],
                $uri eq CHAT ? [ ["Bearer $key"], undef ]
                    : [ undef, [$key] ], "$name: key";
        }
        is scalar(grep { $_->requests } values %provider), @names,
            'and nobody else';
    }

    for my $uri (CHAT, MESSAGES) {
        is ask($uri, prompt('Hello', model => 'nobodys'))->status, 404,
            "$uri: a model that nobody has";
    }
    is_deeply [ sort map { $_->{id} }
        @{ $nginx->client->get('/v1/models')->json->{data} } ],
        [qw(claude-haiku-5-5 claude-sonnet-5-5 gpt-4.1 gpt-4.1-mini)],
        'the models';

    official_clients();
    the_end();
};

subtest 'complexity.conf' => sub {
    start('complexity.conf');
    my %question = (
        'a few words'   => [ 'Hello, how are you?' => 'cheap' ],
        'medium'        => [ 'Tell me more. ' x 60 => 'cheap' ],
        'many words'    => [ 'Tell me more. ' x 101 => 'good' ],
        'a term'        => [ 'Prove it.' => 'cheap' ],
        'two terms'     => [ 'Prove the theorem.' => 'good' ],
        'code'          => [ "Tell me more. \n```\nx\n```\n" x 25 => 'good' ],
    );
    my %name = (good => 'gpt-4.1', cheap => 'gpt-4.1-mini');

    for my $what (sort keys %question) {
        my ($text, $who) = @{ $question{$what} };
        my $r = ask(CHAT, prompt($text, model => 'auto'));
        is from($r), $who, $what;
        is $r->json->{model}, $name{$who};
    }

    is from(ask(CHAT, prompt('Hello', model => $name{$_}))), $_,
        "who names $name{$_} gets it" for qw(good cheap);

    my %stands_in = (good => 'cheap', cheap => 'good');
    for my $text ('Hello', 'Prove the theorem.') {
        my $data  = prompt($text, model => 'auto');
        my $first = from(ask(CHAT, $data));
        is_deeply [ chain(CHAT, $data, $first, $stands_in{$first}) ],
            [ $first, $stands_in{$first} ], "$first has a stand-in";
    }
    ok wait_for(sub {
        logged('llm.log') =~ /200 "auto" is complex: "gpt-4.1" from good$/m;
    }), 'the log tells';
    the_end();
};

subtest 'batch.conf' => sub {
    plan skip_all => 'no node' if !$has_node;

    my $batch = start('batch.conf', workers => 2);
    my ($limit) = $batch =~ /concurrency=(\d+)/;
    my $openai = $provider{openai};
    my ($in, $out) = map { $nginx->prefix . "/$_" } qw(in.jsonl out.jsonl);

    # the made-up provider says the model's name again
    my @ids = map { "prompt $_" } 1 .. 40;
    my $text = "Stra\x{df}e \x{20ac}" x 10;
    $nginx->file('in.jsonl', join '', map {
        JSON::PP::encode_json({ custom_id => $_,
            body => prompt($text, model => "model of $_") }) . "\n";
    } @ids);

    # two stops in the middle, and a line that the first has torn
    $openai->behave({ delay => 0.3 });
    for my $n ($limit, 2 * $limit) {
        my $pid = client($in, $out);
        ok wait_for(sub { (() = results("$out.part")) >= $n }),
            'answers come';
        kill TERM => $pid;
        waitpid $pid, 0;
        ok !-e $out, 'a batch that was stopped has no results yet';
        append("$out.part", '{"custom_id": "prompt 4') if $n == $limit;
    }
    my @kept = results("$out.part");
    cmp_ok scalar @kept, '<', 40, 'but what it has got is kept';
    is scalar(grep { $_ eq qq({"custom_id": "prompt 4\n) }
        lines("$out.part")), 1, 'and loses nothing by what was torn';

    ok wait_for(sub { !status('openai')->{in_flight} }), 'all is quiet';
    $openai->forget;
    $openai->behave({ status => 400, message => 'not like this', times => 2 },
        { delay => 0.2 });
    my ($code, $said) = run_client($in, $out);
    is $code, 1, 'some have failed';
    is scalar(my @asked = $openai->requests), 40 - @kept,
        'what is done is not asked again';
    my @failed = $said =~ /^failed: (prompt \d+): 400 not like this$/mg;
    is scalar @failed, 2, 'who has failed is told' or diag($said);
    like $said, qr/^38 done, 2 failed$/m;

    my @results = results($out);
    is_deeply [ map { $_->{custom_id} } @results ], \@ids,
        'all results, in the order of the prompts';
    my %is_failed = map { $_ => 1 } @failed;
    is_deeply [ map { $_->{response}{body}{model} // 'none' } @results ],
        [ map { $is_failed{$_} ? 'none' : "model of $_" } @ids ],
        'each has its own answer';
    is JSON::PP::decode_json($asked[-1]{body})->{messages}[0]{content},
        $text, 'the provider has got it letter by letter';
    ok !-e "$out.part", 'nothing else is left';

    $openai->forget;
    is +(run_client($in, $out))[0], 0, 'once more';
    is_deeply [ sort map { /"model":"model of ([^"]+)"/ }
        map { $_->{body} } $openai->requests ], [ sort @failed ],
        'only for those that had failed';
    is_deeply [ map { $_->{response}{body}{model} } results($out) ],
        [ map { "model of $_" } @ids ], 'now they are whole';

    $openai->forget;
    is +(run_client($in, $out))[0], 0, 'and once more';
    is scalar(() = $openai->requests), 0, 'for nobody';

    # all of them at once, and a provider that has its moods
    unlink $out;
    $openai->forget;
    my %well = (delay => 0.1, text => [$text], pieces => 50);
    $openai->behave({ %well, times => 10 }, { %well, status => 503 },
        { %well, times => 10 },
        { %well, status => 429, headers => { 'retry-after' => 1 } }, \%well);
    ($code, $said) = run_client($in, $out, '-n', 40);
    is $code, 0, 'a 503 and a 429 are nobody\'s trouble' or diag($said);
    is scalar(grep { $_ eq $text } map {
        $_->{response}{body}{choices}[0]{message}{content} // ''
    } results($out)), 40, 'all are there, letter by letter';
    is together(0.1, $openai->requests), $limit,
        "and there were $limit requests at the same time, never more";

    is +(run_client("$root/examples/batch/prompts.jsonl", $out))[0], 1,
        'results of other prompts';
    is scalar(() = results($out)), 40, 'are not overwritten';
    is +(run_client("$root/examples/batch/prompts.jsonl", "$out.2"))[0], 0,
        'the prompts that are there to try';
    the_end();
};

subtest 'logging.conf' => sub {
    start('logging.conf');
    my @stories = (
        [ { outcome => 'ok', provider => 'openai', status => 200,
            attempts => 1, fallback => 0, upstream_status => 200,
            upstream_model => 'gpt-4.1', stream => 0, first_token => '',
            waited => '0.000',
            input_tokens => 7, output_tokens => 3,
            cost => '0.000038' },
          sub { ask(CHAT) } ],
        [ { outcome => 'ok', provider => 'openai', stream => 1,
            first_token => qr/^0\.\d+$/, input_tokens => 7,
            output_tokens => 3, cost => '0.000038' },
          sub { ask(CHAT, prompt('Hello', stream => \1)) } ],
        [ { outcome => 'failover', provider => 'deepseek', status => 200,
            attempts => 2, fallback => 1, upstream_status => '503, 200',
            upstream_model => 'deepseek-chat' },
          sub { $provider{openai}->behave(503); ask(CHAT) } ],
        [ { outcome => 'error', status => 502, attempts => 2,
            reject => 'all_providers_failed' },
          sub { $provider{deepseek}->behave(503); ask(CHAT) } ],
        [ { outcome => 'truncated', status => 200, provider => 'openai' },
          sub {
              $provider{openai}->behave({ pace => 0.01, reset => '2 tokens' });
              ask(CHAT, prompt('Hello', stream => \1));
          } ],
        [ { outcome => 'ok', model => qq("odd" \x{20ac}), status => 200 },
          sub {
              $provider{openai}->behave('ok');
              ask(CHAT, prompt('Hello', model => qq("odd" \x{20ac})));
          } ],
        [ { outcome => 'rejected', status => 400, provider => '',
            reject => 'invalid_request_error', attempts => 0 },
          sub { ask(CHAT, {}) } ],
        [ { outcome => 'ok', uri => CHAT, method => 'POST' },
          sub { ask(CHAT . '?api_key=secret') } ],
    );

    my $n = 0;
    my @troubles;
    for (@stories) {
        my ($should, $do) = @$_;
        $do->();
        ok wait_for(sub { logged('llm.log') =~ tr/\n// > $n }), 'a line';
        my $line = (split /\n/, logged('llm.log'))[ $n++ ];
        my $is = eval { JSON::PP::decode_json($line) } or do {
            fail("JSON: $line");
            next;
        };
        for my $member (sort keys %$should) {
            ref $should->{$member}
                ? like $is->{$member}, $should->{$member}, $member
                : is $is->{$member}, $should->{$member},
                    "$should->{outcome}: $member";
        }
        is_deeply [ grep { !defined $is->{$_} } qw(time id client seconds
            bytes upstream_seconds upstream_id) ], [], 'and the rest';
        unlike $line, qr/secret/, 'no keys';
        push @troubles, $line if $should->{outcome} ne 'ok';
    }
    is_deeply [ split /\n/, logged('llm-trouble.log') ], \@troubles,
        'the second log has what did not go well';

    my ($got) = $provider{openai}->requests;
    my ($id) = logged('llm.log') =~ /"id":"(\w+)"/;
    is $got->{headers}{'x-client-request-id'}[0], $id,
        'the provider knows the id';
    the_end();
};

done_testing;


# Starts nginx with an example.  A sub may change its text further.
sub start {
    my ($file, @more) = @_;
    my $change = @more % 2 ? shift @more : sub { };

    the_end() if $nginx;
    $nginx = LLM::Nginx->new(@more);

    local $_ = slurp("examples/$file");
    $change->();

    my $endpoint = qr{^(llm_provider (\S+) \{\s+endpoint +)https://[^/;]+}m;
    s{$endpoint}{$1 . stand_in($2)->url}ge;
    my @providers = /^llm_provider/mg;
    is keys %provider, @providers, 'every provider has its stand-in';

    $nginx->env($_ => key_of($_)) for /\benv:(\w+);?/g;
    s/listen 127\.0\.0\.1:8080;/listen 127.0.0.1:{{port}};/
        or fail("$file listens");
    s{/var/log/nginx/}{{{prefix}}/logs/}g;

    $nginx->write_conf(http => $_);
    my ($well, $output) = $nginx->test_conf;
    ok $well, "nginx takes $file" or diag($output);
    unlike $output, qr/\[warn\]/, 'without a warning';

    $nginx->start;
    return $_;
}


sub the_end {
    $nginx->done;
    undef $nginx;
    %provider = ();
}


sub stand_in {
    my ($name) = @_;

    return $provider{$name} = LLM::Provider->new(name => $name);
}


sub key_of { "the-value-of-$_[0]" }


sub slurp {
    my ($file) = @_;

    open my $fh, '<:raw', "$root/$file" or die "$file: $!";
    local $/;
    return scalar <$fh>;
}


# calls

sub prompt {
    my ($text, %more) = @_;

    return { model => 'gpt-4.1', %more,
        messages => [ { role => 'user', content => $text } ] };
}


sub started {
    my ($uri, $data, %headers) = @_;

    return LLM::HTTP->new($nginx->url)->start(POST => $uri, close => 1,
        json => $data // prompt('Hello'), headers => \%headers);
}


sub ask { started(@_)->finish }


sub from {
    my ($r) = @_;

    return $r->header('x-llm-provider')
        // 'nobody: ' . $r->status . ' ' . $r->body;
}


# Who answers when nobody has failed, when the first has, and so on.  From the
# back, so that each has a success before too many failures open its circuit.
sub chain {
    my ($uri, $data, @names) = @_;

    my @seen;
    for my $n (reverse 0 .. @names) {
        $provider{ $names[$_] }->behave($_ < $n ? 503 : 'ok')
            for 0 .. $#names;

        my $r = ask($uri, $data);
        if ($n == @names) {
            is $r->status, 502, 'behind them there is nobody';
            next;
        }
        is $r->header('x-llm-attempts'), $n + 1, "attempts: $n failed";
        unshift @seen, from($r);
    }
    return @seen;
}


# the text of a stream that came to its end
sub text {
    my ($r) = @_;

    my @data = map { $_->{data} } $r->events;
    return 'not at its end' if !@data || pop @data ne '[DONE]';
    return join '', map {
        JSON::PP::decode_json($_)->{choices}[0]{delta}{content} // ''
    } @data;
}


sub status {
    my ($name) = @_;

    my ($is) = grep { $_->{name} eq $name }
        @{ $nginx->client->get('/status')->json->{providers} };
    return $is;
}


sub logged {
    my ($name) = @_;

    open my $fh, '<:raw', $nginx->prefix . "/logs/$name" or return '';
    local $/;
    return scalar <$fh> // '';
}


sub wait_for {
    my ($condition) = @_;

    my $deadline = time + PATIENCE;
    until ($condition->()) {
        return 0 if time > $deadline;
        sleep 0.01;
    }
    return 1;
}


# programs

sub official_clients {
    SKIP: {
        skip 'the official clients are not installed', 2
            if !$has_node || !-e "$root/t/clients/node_modules/openai";

        my $said = command(sub {
            chdir "$root/t/clients" or die $!;
            exec 'node', '--input-type=module', '-e', <<'JS', $nginx->url;
import OpenAI from 'openai';
import Anthropic from '@anthropic-ai/sdk';

const url = process.argv[1];
const messages = [{ role: 'user', content: 'Hello' }];
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'mine' });
const anthropic = new Anthropic({ baseURL: url, apiKey: 'mine' });

const chat = await openai.chat.completions
    .create({ model: 'claude-sonnet-5-5', messages });
const message = await anthropic.messages
    .create({ model: 'claude-sonnet-5-5', messages, max_tokens: 10 });

console.log(`OpenAI's: ${chat.choices[0].message.content}`);
console.log(`Anthropic's: ${message.content[0].text}`);
JS
        });
        like $said, qr/^$_: token1 token2 token3 $/m, "$_ client"
            for "OpenAI's", "Anthropic's";
    }
}


sub client {
    my ($in, $out, @options) = @_;

    defined(my $pid = fork) or die "fork: $!";
    return $pid if $pid;
    open STDERR, '>', '/dev/null';
    exec 'node', "$root/examples/batch/batch.mjs", @options, $in, $out,
        $nginx->url . '/batch/v1';
}


# (exit code, what it said)
sub run_client {
    my ($in, $out, @options) = @_;

    my $said = command(sub {
        exec 'node', "$root/examples/batch/batch.mjs", @options, $in, $out,
            $nginx->url . '/batch/v1';
    });
    return ($? >> 8, $said);
}


sub command {
    my ($exec) = @_;

    defined(my $pid = open my $output, '-|') or die "fork: $!";
    if (!$pid) {
        open STDERR, '>&', \*STDOUT;
        $exec->();
    }
    local $/;
    my $said = <$output> // '';
    close $output;
    return $said;
}


# what can be read of a file of results
sub results {
    my ($file) = @_;

    return map { eval { JSON::PP::decode_json($_) } // () } lines($file);
}


sub lines {
    my ($file) = @_;

    open my $fh, '<:raw', $file or return;
    return <$fh>;
}


sub append {
    my ($file, $text) = @_;

    open my $fh, '>>:raw', $file or die "$file: $!";
    print {$fh} $text;
    close $fh or die "$file: $!";
}


# How many requests there were at the same time, each for at least so long.
sub together {
    my ($seconds, @requests) = @_;

    my @good = grep { $_->{sent} > 0 && $_->{outcome} eq 'answered' }
        @requests;
    return max map {
        my $now = $_->{time};
        scalar grep { $_->{time} <= $now && $now < $_->{time} + $seconds }
            @good;
    } @good;
}
