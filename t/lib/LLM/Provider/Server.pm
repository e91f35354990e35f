package LLM::Provider::Server;

=head1 NAME

LLM::Provider::Server - the process of a made-up provider

=head1 SYNOPSIS

    my $server = LLM::Provider::Server->new(
        name => 'openai', listen => sub { $listener }, control => $socket,
    );
    $server->serve;       # until the control socket closes

One process, one select loop, no blocking call but to the control socket.
Over that come commands from LLM::Provider, each with one reply, so that a
command is in force as soon as it has returned.

=cut

use strict;
use warnings;

use List::Util qw(min);
use Time::HiRes qw(time);

use LLM::Provider::Connection;
use LLM::Provider::Message qw(read_message write_message);

use constant NO_LIMIT => 1e9;

sub new {
    my ($class, %option) = @_;

    my $self = bless {
        keepalive_requests => NO_LIMIT,
        greeting           => 'serve',
        behaviours         => [],
        peers              => [],
        %option,
    }, $class;

    $self->forget;
    $self->accept_again;
    return $self;
}

sub serve {
    my $self = shift;

    while (1) {
        my ($readable, $writable) = $self->_select;

        last if vec($readable, fileno $self->{control}, 1)
            && !$self->_obey;
        $self->_accept
            if $self->{listener} && vec $readable, $self->{listener_fd}, 1;

        $_->run(vec($readable, $_->{fd}, 1), vec($writable, $_->{fd}, 1))
            for @{ $self->{peers} };
        @{ $self->{peers} } = grep { !$_->is_over } @{ $self->{peers} };
    }
}

sub _select {
    my $self = shift;

    my ($readable, $writable) = ('', '');
    vec($readable, fileno $self->{control}, 1) = 1;
    vec($readable, $self->{listener_fd}, 1) = 1
        if $self->{listener} && !$self->{deaf};

    for my $peer (@{ $self->{peers} }) {
        vec($readable, $peer->{fd}, 1) = 1 if $peer->wants_read;
        vec($writable, $peer->{fd}, 1) = 1 if $peer->wants_write;
    }

    my $wake = min grep { defined } map { $_->wakes_at } @{ $self->{peers} };
    my $pause = defined $wake ? $wake - time : undef;
    $pause = 0 if defined $pause && $pause < 0;

    my $ready = select $readable, $writable, undef, $pause;
    return $ready > 0 ? ($readable, $writable) : ('', '');
}

sub _accept {
    my $self = shift;

    accept my $socket, $self->{listener} or return;
    $self->{connections}++;
    push @{ $self->{peers} }, LLM::Provider::Connection->new(
        $self, $socket, ++$self->{last_peer}, $self->{greeting});
}

# what the connections ask of their server

sub next_step {
    my ($self, $request) = @_;

    return $self->{choose}->($request) if $self->{choose};

    my ($behaviour) = grep { $request->{uri} =~ /(?:$_->{uri})/ }
        @{ $self->{behaviours} };
    my $steps = $behaviour ? $behaviour->{steps} : [];
    my $step = $steps->[0] // {};

    $behaviour->{served}++;
    if (@$steps > 1 && $behaviour->{served} >= ($step->{times} // 1)) {
        shift @$steps;
        $behaviour->{served} = 0;
    }
    return $step;
}

# notes a request; returns the name that its answer bears

sub log {
    my ($self, $request) = @_;

    push @{ $self->{requests} }, $request;
    return "$self->{name}-" . ++$self->{last_answer};
}

# commands

sub _obey {
    my $self = shift;

    my $message = read_message($self->{control}) or return 0;
    my ($command, @arguments) = @$message;
    write_message($self->{control}, [ $self->$command(@arguments) ]);
    return $command ne 'stop';
}

sub stop { }

# a behaviour for another set of requests stands before the older ones

sub behave {
    my ($self, $uri, @steps) = @_;

    my @others = grep { $_->{uri} ne $uri } @{ $self->{behaviours} };
    my $new = { uri => $uri, steps => \@steps, served => 0 };
    $self->{behaviours} = $uri eq '' ? [ @others, $new ] : [ $new, @others ];
    return;
}

sub requests { @{ $_[0]{requests} } }

sub stats {
    my $self = shift;

    return {
        requests           => scalar @{ $self->{requests} },
        connections        => $self->{connections},
        open               => scalar(grep { !$_->is_over }
            @{ $self->{peers} }),
        idle               => scalar(grep { $_->is_idle }
            @{ $self->{peers} }),
        stale              => $self->{stale},
        aborted            => $self->{aborted},
        handshake_failures => $self->{handshake_failures},
    };
}

sub forget {
    my $self = shift;

    $self->{requests} = [];
    $self->{$_} = 0
        for qw(connections stale aborted handshake_failures);
    return;
}

sub greet {
    my ($self, $greeting) = @_;

    $self->{greeting} = $greeting;
    return;
}

sub refuse {
    my $self = shift;

    close $self->{listener} if $self->{listener};
    delete @$self{qw(listener listener_fd deaf plugs)};
    return;
}

sub accept_again {
    my $self = shift;

    $self->refuse;
    $self->_listen(128);
    return;
}

# Connects neither succeed nor fail: the queue of the listener is full, and
# the kernel drops what else comes.

sub deafen {
    my $self = shift;

    $self->refuse;
    $self->_listen(0);
    $self->{deaf} = 1;

    my $connected;
    do {
        ($connected, my $plug) = $self->{plug}->();
        push @{ $self->{plugs} }, $plug;
    } while ($connected);
    return;
}

sub drop {
    my ($self, $which) = @_;

    $_->drop for grep { $which ne 'idle' || $_->is_idle } @{ $self->{peers} };
    @{ $self->{peers} } = grep { !$_->is_over } @{ $self->{peers} };
    return;
}

sub _listen {
    my ($self, $backlog) = @_;

    $self->{listener} = $self->{listen}->($backlog);
    $self->{listener}->blocking(0);
    $self->{listener_fd} = fileno $self->{listener};
}

1;
