package Faults;

=head1 NAME

Faults - what callers and providers see when a provider fails

=head1 SYNOPSIS

    use Faults;

    for my $setting (Faults->settings) {
        for my $fault (Faults->under($setting)) {
            my $seen = Faults->run($fault, $setting->{route});

            $seen->{calls}[0]{status};          # what the caller sees
            $seen->{providers}[0]{requests};    # what "first" sees
        }
    }

Each fault has a route of its own: the provider C<first>, which has it, and
C<second>, which is healthy.  A caller asks for a stream of 60 tokens, once or
several times.

=head1 WHAT WAS SEEN

    calls       a list: status, provider, attempts, tokens, done, finished,
                complete (the framing), error (the data of an error event),
                code (of an error that is the whole answer), outcome, text
    providers   a list: name, requests (how each ended), answers (what the
                script gave them), bodies, circuit (its states), counts
    sent        the body that the caller sent
    log         the error log

=cut

use strict;
use warnings;

use JSON::PP ();
use LLM::Gateway;

use constant TOKENS => 60;

my $JSON = JSON::PP->new->utf8->canonical;

my @SETTINGS = (
    { name => 'Default settings', route => '' },
    { name => 'With llm_commit window=64k',
      route => 'llm_commit window=64k;', is_saved => 1 },
    { name => 'With llm_retry same=1', only => 'again',
      route => 'llm_retry same=1 base=100ms jitter=0;' },
);

my $LONG = 'This model\'s maximum context length is 8192 tokens.';
my $PREFILL = 'This model does not support assistant message prefill. '
    . 'The conversation must end with a user message.';

# first, second: their steps, if they are not just healthy; third: there is
# one; open: how long a circuit is; calls: those of the caller, and what is
# done between them; again: a retry of the same provider says more;
# is_callers: what the caller asked for is the fault

my @FAULTS = (
    { name => '429 once, with `Retry-After: 1`', again => 1,
      first => [
          { status => 429, headers => { 'retry-after' => 1 }, times => 1 },
          {},
      ],
      calls => [ 1, 1, 'throttle over', 1 ] },
    { name => '429 always', first => [429], calls => [ 1, 1, 1 ] },
    { name => '500 once', again => 1,
      first => [ { status => 500, times => 1 }, {} ],
      calls => [ 1, 1 ] },
    { name => '503 always', again => 1, first => [503],
      calls => [ (1) x 5 ] },
    { name => 'reset before the header', first => ['reset'] },
    { name => 'it never answers', first => ['hang'] },
    { name => 'the first token is late', first => [ { first => 20 } ] },
    { name => 'keep-alives, and no token',
      first => [ { events => [ map { (": keep-alive\n\n", \0.1) } 1 .. 99 ] } ],
    },
    { name => 'an error event before the first token',
      first => [ { error => 0 } ] },
    { name => 'an error event after 20 tokens', first => [ { error => 20 } ] },
    { name => 'cut after 40 of 60 tokens',
      first => [ { reset => '40 tokens' } ] },
    { name => 'a stall after 20 tokens',
      first => [ { stall => '20 tokens' } ] },
    { name => 'the end without `finish_reason`', first => [ { finish => 0 } ] },
    { name => 'one malformed event, as the first',
      first => [ { events => [ qq(data: {"choices":[{\n\n), \0.5 ] } ] },
    { name => 'one malformed event, after 20 tokens',
      first => [ { malformed => 20 } ] },
    { name => 'no `[DONE]`', first => [ { done => 0 } ] },
    { name => 'no `[DONE]`, and the connection stays open',
      first => [ { done => 0, framing => 'close', stall => 'end' } ] },
    { name => 'context length exceeded',
      first => [ { status => 400, code => 'context_length_exceeded',
          message => $LONG } ] },
    { name => 'content filter', is_callers => 1,
      first => [ { status => 400, code => 'content_filter' } ] },
    { name => '503, and the fallback rejects assistant prefill',
      prefill => 1,
      first   => [503],
      second  => [ { status => 400, message => $PREFILL } ],
      third   => 1 },
    { name => 'down for a while, then healthy', first => [ {} ],
      open  => '1s',
      calls => [ 'down', (1) x 5, 'up', 'open time over', 1, 1, 1 ] },
);


sub settings { @SETTINGS }

sub under {
    my ($class, $setting) = @_;

    my $only = $setting->{only};
    return grep { !$only || $_->{$only} } @FAULTS;
}


sub run {
    my ($class, $fault, $route) = @_;

    my @names = ('first', 'second', $fault->{third} ? 'third' : ());
    my $self = bless {
        gateway => _gateway($route, $fault->{open} // '10s', @names),
        text    => $JSON->encode(_request($fault)),
    }, $class;

    my @providers = map { $self->{gateway}->provider($_) } @names;
    my %script = map { $_ => _script($_, $fault->{$_}) } @names;
    $_->behave(@{ $script{ $_->name } }) for @providers;

    my @calls;
    for my $what (@{ $fault->{calls} // [1] }) {
        my $do = $what eq '1' ? undef : $self->can(_name($what));
        $do ? $self->$do($providers[0]) : push @calls, $self->_call;
    }

    my $status = $self->_settled;
    return {
        sent      => $self->{text},
        log       => $self->{gateway}->nginx->error_log,
        calls     => \@calls,
        providers => [ map {
            _provider($_, $script{ $_->name }, $status->{ $_->name })
        } @providers ],
    };
}


sub _name { 'wait_' . ($_[0] =~ tr/ /_/r) }

# every token says whose it is

sub _script {
    my ($name, $steps) = @_;

    my %healthy = (text => [ map { "$name-$_ " } 1 .. TOKENS ]);
    $healthy{pace} = 0.002 if $name eq 'first';
    return [ map {
        +{ %healthy, %{ LLM::Provider::Answer->step($_) } }
    } @{ ref $steps ? $steps : [ {} ] } ];
}


sub _request {
    my $fault = shift;

    my @messages = ({ role => 'user', content => 'Hello' });
    push @messages, { role => 'assistant', content => 'Dear' }
        if $fault->{prefill};
    return { model => 'm', stream => \1, messages => \@messages };
}


sub _gateway {
    my ($route, $open, @names) = @_;

    my $settings = 'timeout connect=500ms header=500ms first_token=500ms'
        . " idle=500ms; circuit failure_threshold=3 open=$open;";

    return LLM::Gateway->new(
        providers => [ map { $_ => $settings } @names ],
        routes    => {},
        http      => join(' ', 'upstream llm {',
            (map { "llm_use $_;" } @names), 'keepalive 4;', $route, '}'),
    );
}


# what a caller does

sub _call {
    my $self = shift;

    my $answer = $self->{gateway}->call(undef, undef, body => $self->{text},
        headers => { 'content-type' => 'application/json' })->finish;
    my $logged = $self->{gateway}->logged;

    my %call = (
        status   => $answer->status,
        complete => $answer->complete ? 1 : 0,
        provider => $answer->header('x-llm-provider'),
        attempts => $answer->header('x-llm-attempts'),
        outcome  => $logged->{llm_outcome},
        tokens   => 0,
        text     => '',
    );

    if ($answer->status >= 400) {
        $call{code} = $answer->json->{error}{code};
        return \%call;
    }

    _event(\%call, $_->{data}) for $answer->events;
    return \%call;
}


sub _event {
    my ($call, $data) = @_;

    return $call->{done} = 1 if $data eq '[DONE]';

    my $event = eval { $JSON->decode($data) }
        or return $call->{unreadable}++;
    return $call->{error} = $event->{error} if $event->{error};

    my $choice = $event->{choices}[0] or return;
    $call->{finished} = 1 if defined $choice->{finish_reason};

    my $text = $choice->{delta}{content} // '';
    $call->{text} .= $text;
    $call->{tokens}++ if length $text;
}


# what happens in between

sub wait_down { $_[1]->refuse }
sub wait_up   { $_[1]->accept_again }

sub wait_throttle_over {
    my $self = shift;

    $self->_wait_until(sub { !$_[0]{throttled_for} });
}

sub wait_open_time_over {
    my $self = shift;

    $self->_wait_until(sub { !$_[0]{time_until_retry} });
}

sub _wait_until {
    my ($self, $is_over) = @_;

    my $gateway = $self->{gateway};
    $gateway->wait_for(sub { $is_over->($gateway->status('first')) })
        or die "waited in vain\n";
}


# what the providers and the circuits saw

sub _settled {
    my $self = shift;

    my %status;
    $self->{gateway}->wait_for(sub {
        %status = map { $_->{name} => $_ }
            @{ $self->{gateway}->status->{providers} };
        return !grep { $_->{in_flight} } values %status;
    });
    return \%status;
}


sub _provider {
    my ($provider, $script, $status) = @_;

    $provider->wait_for(sub {
        !grep { $_->{outcome} eq 'waiting' } $_[0]->requests
    });

    my @requests = $provider->requests;
    my @answers = map {
        my $step = $_;
        ($step) x ($step->{times} // @requests);
    } @$script;

    return {
        name     => $provider->name,
        requests => [ map { $_->{outcome} } @requests ],
        answers  => [ @answers[ 0 .. $#requests ] ],
        bodies   => [ map { $_->{body} } @requests ],
        circuit  => [ 'closed', map { $_->{to} }
            @{ $status->{state_changes} } ],
        counts   => { map { /^(.*?)(?:_calls)?$/; $1 => $status->{$_} } qw(
            successful_calls failed_calls throttled_calls neutral_calls
            rejected_calls stream_errors unreadable_frames
        ) },
    };
}

1;
