package LLM::Oracle;

=head1 NAME

LLM::Oracle - what must hold, whatever callers and providers do

=head1 SYNOPSIS

    my @complaints = LLM::Oracle->answer($call, $answer);
    push @complaints, LLM::Oracle->glance($status, $status_before);
    push @complaints, LLM::Oracle->rest($status);
    LLM::Oracle->tally(\%tally, @lines);
    push @complaints, LLM::Oracle->log($status, \%tally);
    push @complaints, LLM::Oracle->answers(\%tally, $crowd->results);
    push @complaints, LLM::Oracle->requests($chaos, \%tally, @providers);

Each returns what is wrong, as text; nothing where all is well.

=over

=item answer(CALL, ANSWER)

A call of LLM::Chaos, and what its caller got: one whole answer of one
provider, or an error of the gateway in the caller's dialect, or a break that
shows.

=item order(ANSWER)

What an operator got.

=item glance(STATUS, BEFORE)

What holds at any moment: bounds; and against the status before, that nothing
which only grows has shrunk.  (A status is no snapshot: the numbers in it are
read one after the other, while calls go on.)

=item rest(STATUS)

What holds besides when nothing is in flight: every call has its verdict,
every permit and every place is back, the moves of a circuit are a chain.

=item tally(TALLY, LINES), log(STATUS, TALLY)

Adds up lines of the access log, as hashes; and whether the counters are the
same.

=item told(STATUS)

What a status says of that: { outcomes, attempts }.

=item answers(TALLY, RESULTS)

What the callers complain of; and whoever got no answer at all had one that
broke off before nginx had sent a byte of it.

=item requests(CHAOS, TALLY, PROVIDERS)

What the providers were asked for: no more than the log has attempts, each
with the body of the caller and with the provider's own key.

=back

=cut

use strict;
use warnings;

use JSON::PP ();
use List::Util qw(sum0);

my $JSON = JSON::PP->new->utf8->allow_nonref;

my @CALLS = map { "${_}_calls" } qw(successful failed throttled neutral);

my @GROWING = (@CALLS, qw(total_calls rejected_calls late_calls stream_errors
    unreadable_frames transitions));

my %MOVE = map { $_ => 1 } ('closed open', 'open half_open',
    'half_open closed', 'half_open open', 'open closed');

my %CODE = map { $_ => 1 } qw(all_circuits_open rate_limit_exceeded
    all_providers_failed model_not_found invalid_request_error not_found
    method_not_allowed request_timeout request_too_large uri_too_long
    unauthorized forbidden);

# answers

sub answer {
    my ($class, $call, $answer) = @_;

    my $seen = $class->read($call, $answer);

    return map { "call $call->{id}: $_" }
        $class->_secrets($answer),
        $class->_one_speaker($seen),
        $call->{abort} ? () : $class->_ending($call, $answer, $seen);
}

# what an answer says: its tokens, and the events that end it

sub read {
    my ($class, $call, $answer) = @_;

    my $type = $answer->header('content-type') // '';
    my %seen = (
        stream => $type =~ m{^text/event-stream}i ? 1 : 0,
        tokens => [],
    );
    my $looks_so = $answer->body =~ /^(?:event|data): /;
    @seen{qw(id name nth count framing)}
        = split /\./, $answer->header('x-chaos') // '';

    if (!$seen{stream} && !$looks_so) {
        $seen{tokens} = [ _tokens($answer->body) ];
        return \%seen;
    }

    for my $event ($answer->events) {
        my $data = $event->{data} // '';
        $seen{is_behind} = 1 if $seen{error};

        my $json = eval { $JSON->decode($data) };
        $seen{done} = 1 if $data eq '[DONE]';
        $seen{error} = $event
            if ($event->{event} // '') eq 'error'
            || ref $json eq 'HASH' && defined $json->{error};
        next if ref $json ne 'HASH';

        my $kind = $json->{type} // '';
        $seen{finish} = 1
            if $kind =~ /^(?:message_stop|response\.completed)$/
            || grep { defined $_->{finish_reason} }
                @{ $json->{choices} // [] };
        push @{ $seen{tokens} }, _tokens($data)
            if $kind !~ /^response\./ || $kind =~ /delta$/;
    }
    return \%seen;
}

sub _tokens { map { [ split /\./ ] } $_[0] =~ /~([\w.-]+)~/g }

sub _secrets {
    my ($class, $answer) = @_;

    my $raw = ($answer->raw_head // '') . ($answer->body // '');
    return map { "the caller sees a secret: $_" }
        $raw =~ /\b(key-\w+|127\.0\.0\.1:\d+|nginx\.conf)\b/g;
}

# tokens of one attempt alone, in their order, without a gap

sub _one_speaker {
    my ($class, $seen) = @_;

    my @tokens = @{ $seen->{tokens} };
    my %speaker = map { join('.', @$_[ 0 .. 2 ]) => 1 } @tokens;
    my @numbers = map { $_->[3] } grep { $_->[3] } @tokens;

    return (
        keys %speaker > 1
            ? 'one answer of several: ' . join ' ', sort keys %speaker : (),
        "@numbers" ne join(' ', 1 .. @numbers)
            && ($seen->{framing} // '') ne 'raw'
            ? "tokens are missing: @numbers" : (),
    );
}

sub _ending {
    my ($class, $call, $answer, $seen) = @_;

    my $error = $answer->error // '';
    return 'no end in time' if $error =~ /^(?:timeout|curl 28)$/;

    # curl forgets what came before the reset of an HTTP/2 stream
    return if $error =~ /^curl (?:18|92)$/;

    # a whole one that broke off before nginx had sent anything: see log
    my $status = $answer->status;
    return $error eq 'closed' ? () : "no answer: $error" if !$status;

    return if $call->{method} eq 'HEAD';

    return $class->_error($call, $answer)
        if $status >= 400 && !$answer->header('x-chaos');
    return () if $status >= 300;
    return $status == 200 && $seen->{stream} && !$call->{odd}
        ? _stream($answer, $seen) : _plain($call, $answer, $seen);
}

sub _error {
    my ($class, $call, $answer) = @_;

    my $status = $answer->status;
    return "status $status, and the answer has no end"
        if !$answer->complete;

    my $body = eval { $JSON->decode($answer->body) };
    my $error = ref $body eq 'HASH' ? $body->{error} : undef;
    return "status $status, but no error in JSON: " . $answer->body
        if ref $error ne 'HASH' || !length($error->{message} // '');

    my $is_messages = $call->{uri} =~ m{/messages};
    return "status $status in another dialect: " . $answer->body
        if $is_messages != (($body->{type} // '') eq 'error');

    my $code = $error->{code};
    my $is_refusal = ($code // '')
        =~ /^(?:all_circuits_open|rate_limit_exceeded)$/;
    return (
        !$is_messages && !$CODE{$code}
            ? "status $status with code $code: $error->{message}" : (),
        $status == 500 ? "status 500: $error->{message}" : (),
        $is_refusal && !$answer->header('retry-after')
            && $error->{message} !~ /address not known/
            ? "no Retry-After: $error->{message}" : (),
    );
}

# A stream looks whole, and is; or it tells that it is not.

sub _stream {
    my ($answer, $seen) = @_;

    return if $answer->header('content-encoding');

    my $is_finished = $seen->{done} || $seen->{finish};
    my $tokens = @{ $seen->{tokens} };
    return (
        $is_finished && $seen->{count} =~ /\d/ && $tokens != $seen->{count}
            ? "it looks whole, with $tokens of $seen->{count} tokens" : (),
        $seen->{error} && $seen->{done} ? '[DONE] and an error' : (),
        $seen->{is_behind} ? 'events behind an error' : (),
        !$seen->{error} && !$is_finished ? 'a break that nobody told' : (),
        $seen->{error} && $answer->complete && $answer->version ne '1.0'
            && ($answer->header('connection') // '') ne 'close'
            ? 'a break, but the connection has a proper end' : (),
        !$seen->{error} && !$answer->complete
            ? 'no error event, and no proper end: ' . $answer->error : (),
    );
}

# Where the framing says that it is whole, it is.  That of an old caller, or
# of an old provider, says nothing; then it is half a JSON document.

sub _plain {
    my ($call, $answer, $seen) = @_;

    return if $seen->{stream} || !$answer->complete
        || ($seen->{count} // '') !~ /\d/
        || $seen->{framing} !~ /^(?:length|chunked)$/
        || !defined $answer->header('content-length')
            && !defined $answer->header('transfer-encoding')
        || $seen->{name} ne ($answer->header('x-llm-provider') // '')
        || $answer->status == 204 || $call->{form} =~ /models|embed/
        || $answer->body eq '';

    my $tokens = @{ $seen->{tokens} };
    return $tokens == $seen->{count} ? ()
        : "a whole answer with $tokens of $seen->{count} tokens";
}

# what an operator gets: the provider as it is now, or what was wrong

sub order {
    my ($class, $answer) = @_;

    my $status = $answer->status // 0;
    return "order: status $status"
        if !grep { $status == $_ } 200, 400, 403, 404, 405, 413, 415;
    return if $answer->body eq '';

    my $body = eval { $JSON->decode($answer->body) };
    return map { "order: $_" } $class->_secrets($answer),
        ref $body ne 'HASH' ? 'no JSON: ' . $answer->body
        : $status != 200 && !length($body->{error}{message} // '')
            ? "status $status without a message" : ();
}

# the status

sub glance {
    my ($class, $status, $before) = @_;

    my %before = map { $_->{name} => $_ } @{ $before->{providers} // [] };

    return map {
        my $p = $_;
        my $old = $before{ $p->{name} };
        my @fallen = grep { $old && $p->{$_} < $old->{$_} } @GROWING;
        map { "$p->{name}: $_" } _bounds($p),
            map { "$_ fell from $old->{$_} to $p->{$_}" } @fallen;
    } @{ $status->{providers} };
}

sub _sums {
    my $p = shift;

    my $sum = sum0 @$p{@CALLS}, $p->{in_flight};
    return $sum == $p->{total_calls} ? ()
        : "$p->{total_calls} calls, but $sum verdicts";
}

# whoever entered a state has left it, but for the state that it is in

sub _moves {
    my $p = shift;

    my $moves = $p->{moves};
    my %balance = (closed => 1, open => 0, half_open => 0);
    my $count = 0;
    for my $from (keys %$moves) {
        for my $to (keys %{ $moves->{$from} }) {
            my $times = $moves->{$from}{$to};
            $count += $times;
            $balance{$from} -= $times;
            $balance{$to}   += $times;
        }
    }

    # an operator's word is a change, but moves nothing
    my @changes = @{ $p->{state_changes} };
    my $words = grep { $_->{from} eq $_->{to} } @changes;

    return (
        @changes == $p->{transitions}
            && $count + $words != $p->{transitions}
            || $count > $p->{transitions}
            ? "$p->{transitions} transitions, $count moves, $words words" : (),
        map { "moves to $_, less those from it: $balance{$_}" }
            grep { $balance{$_} != ($_ eq $p->{state} ? 1 : 0) }
            sort keys %balance,
    );
}

sub _chain {
    my $p = shift;

    my @changes = grep { $_->{from} ne $_->{to} } @{ $p->{state_changes} };
    my @wrong;
    for my $n (0 .. $#changes) {
        my ($from, $to) = @{ $changes[$n] }{qw(from to)};
        push @wrong, "moved from $from to $to" unless $MOVE{"$from $to"};
        push @wrong, "in $changes[$n-1]{to}, then moved from $from"
            if $n && $changes[ $n - 1 ]{to} ne $from;
    }

    push @wrong, "in $p->{state}, but the last move was to $changes[-1]{to}"
        if @changes && $changes[-1]{to} ne $p->{state};
    return @wrong;
}

sub _bounds {
    my $p = shift;

    my $limits = $p->{limits} // {};
    return (
        (map { "$_ is $p->{$_}" } grep { ($p->{$_} // 0) < 0 } 'in_flight',
            'half_open_calls', 'time_until_retry', 'throttled_for', @GROWING),
        $p->{half_open_calls} > 16 ? 'more probes than permits' : (),
        $p->{half_open_calls} && $p->{state} ne 'half_open'
            ? "$p->{half_open_calls} probes while $p->{state}" : (),
        ($p->{time_until_retry} // 0) > 330
            ? "open for $p->{time_until_retry} s" : (),
        map { "$limits->{$_}{used} of $limits->{$_}{limit} $_" }
            grep { $limits->{$_}{used} > $limits->{$_}{limit} }
            grep { $limits->{$_} } qw(rpm concurrency),
    );
}

sub rest {
    my ($class, $status) = @_;

    my @wrong = map {
        my $p = $_;
        map { "$p->{name}: $_" }
            _sums($p), _moves($p), _chain($p),
            $p->{in_flight} ? "$p->{in_flight} in flight for ever" : (),
            $p->{half_open_calls}
                ? "$p->{half_open_calls} permits are lost" : (),
            map { $_->{used} ? "$_->{used} places are lost" : () }
                grep { defined } $p->{limits}{concurrency},
    } @{ $status->{providers} };

    return @wrong, $class->glance($status), map {
        my $route = $_;
        my $over = sum0 values %{ $route->{outcomes} };
        my $rejected = sum0 values %{ $route->{rejections} };
        map { "route $route->{name}: $_" }
            $over != $route->{requests}
                ? "$route->{requests} requests, $over outcomes" : (),
            $rejected != $route->{rejected}
                ? "$route->{rejected} rejected, $rejected reasons" : (),
    } @{ $status->{routes} };
}

# the access log: what it adds up to

sub tally {
    my ($class, $tally, @lines) = @_;

    for my $line (@lines) {
        my $mark = $line->{http_x_chaos};
        my $attempts = $line->{llm_attempts} =~ /(\d+)/ ? $1 : 0;

        $tally->{outcomes}{ $line->{llm_outcome} }++;
        $tally->{attempts} += $attempts;
        $tally->{calls}{$mark} += $attempts;
        $tally->{truncated}{ $mark =~ s/.*://r } = 1
            if $line->{llm_outcome} eq 'truncated';
    }
}

sub log {
    my ($class, $status, $tally) = @_;

    my $told   = $class->told($status);
    my $logged = $tally->{outcomes};
    return (
        $tally->{attempts} != $told->{attempts}
            ? "$told->{attempts} calls, but the log has $tally->{attempts}"
                . ' attempts' : (),
        map { "$told->{outcomes}{$_} $_, but the log has "
                . ($logged->{$_} // 0) }
            grep { $told->{outcomes}{$_} != ($logged->{$_} // 0) }
            sort keys %{ $told->{outcomes} },
    );
}

# what the status says of it

sub told {
    my ($class, $status) = @_;

    my %outcomes;
    for my $route (@{ $status->{routes} }) {
        $outcomes{$_} += $route->{outcomes}{$_}
            for keys %{ $route->{outcomes} };
    }
    return {
        outcomes => \%outcomes,
        attempts => sum0(map { $_->{total_calls} } @{ $status->{providers} }),
    };
}

sub answers {
    my ($class, $tally, @results) = @_;

    return map { @{ $_->{complaints} },
        ($_->{error} // '') eq 'closed' && !$_->{status}
            && !$tally->{truncated}{ $_->{id} }
            ? "call $_->{id}: no answer" : () } @results;
}

sub requests {
    my ($class, $chaos, $tally, @providers) = @_;

    my (%seen, @wrong);
    for my $provider (@providers) {
        my %used;
        for my $request ($provider->requests) {
            my $is_reused = $used{ $request->{connection} }++;
            my $mark = $request->{headers}{ $chaos->HEADER }[0] // '';

            push @wrong, map { "$mark at " . $provider->name . ": $_" }
                _request($chaos, $provider->name, $request);

            # nobody's failure: the connection was about to be closed
            $seen{$mark}++ unless $is_reused && ($request->{dropped}
                || !$request->{sent}
                && $request->{outcome} =~ /^(?:reset|closed)$/);
        }
    }

    return @wrong, map {
        my $may = $tally->{calls}{$_} // 0;
        $seen{$_} > $may ? "$_: $seen{$_} requests for $may attempts" : ();
    } sort keys %seen;
}

sub _request {
    my ($chaos, $name, $request) = @_;

    my ($id) = ($request->{headers}{ $chaos->HEADER }[0] // '') =~ /:(.*)/;
    my $call = $chaos->call($id);

    my $key = join ' ', @{ $request->{headers}{authorization} // [] };
    my $is_own = $chaos->has_own_key($name);
    my $wanted = 'Bearer ' . ($is_own ? "key-$name" : $chaos->KEY);

    my $body = $call->{how}{body} // join '',
        grep { !ref } @{ $call->{how}{chunked} // [] };
    my $got = $request->{body};
    s/"model":"(?:[^"\\]|\\.)*"/"model"/g for $body, $got;
    s/"stream_options":\{"include_usage":true\},?|,?"stream_options":.*?\}//
        for $body, $got;

    return (
        $key ne $wanted ? "the key is $key" : (),
        $got ne $body && !$request->{cut}
            ? "the body is not the caller's: $got" : (),
    );
}

1;
