package LLM::Caller;

=head1 NAME

LLM::Caller - makes the calls that LLM::Chaos has made up

=head1 SYNOPSIS

    my $caller = LLM::Caller->new(url => $url, h2 => $other_url);
    my $answer = $caller->make($call);      # an LLM::HTTP::Answer

A connection that was kept alive and is found closed is made anew, as any
client does.

=cut

use strict;
use warnings;

use Time::HiRes qw(sleep);

use LLM::HTTP;

use constant PATIENCE => 20;

sub new {
    my ($class, %option) = @_;

    return bless {%option}, $class;
}

sub make {
    my ($self, $call) = @_;

    return $self->_h2($call) if $call->{h2};

    my $kept = $call->{keep} ? delete $self->{kept} : undef;
    my $http = $kept // $self->_connection;
    my $answer = $self->_one($http, $call);

    if ($kept && !$answer->status && $answer->error =~ /^(?:closed|reset)$/) {
        $http = $self->_connection;
        $answer = $self->_one($http, $call);
    }

    $self->{kept} = $http if $call->{keep} && $answer->complete;
    return $answer;
}

sub _connection { LLM::HTTP->new($_[0]{url}, timeout => PATIENCE) }

sub _one {
    my ($self, $http, $call) = @_;

    my $abort = $call->{abort};
    $http->start($call->{method}, $call->{uri}, %{ $call->{how} },
        $abort && $abort->{sent} ? (only => $abort->{sent}) : ());

    if ($abort) {
        $self->_abort($http, $abort, $call->{reset});
        return $http->answer;
    }

    if ($call->{slow}) {
        $http->read_until(qr/./s);
        sleep 0.05;
    }
    return $http->finish;
}

sub _abort {
    my ($self, $http, $abort, $reset) = @_;

    if (my $count = $abort->{bytes}) {
        $http->read_until(qr/.{$count}/s);
    } else {
        sleep $abort->{after} // 0;
    }

    if ($abort->{shut}) {
        $http->shut;
        $http->is_closed(PATIENCE);
    }
    $http->answer->fail('aborted');
    $reset ? $http->reset : $http->close;
}

sub _h2 {
    my ($self, $call) = @_;

    my $how = $call->{how};
    my @given = @{ $how->{headers} };
    my %headers;
    while (my ($name, $value) = splice @given, 0, 2) {
        $headers{$name} = $value;
    }

    return LLM::HTTP->h2("$self->{h2}$call->{uri}",
        method  => $call->{method},
        headers => \%headers,
        body    => $how->{body},
        timeout => $call->{abort} ? $call->{abort}{after} // 0.1 : PATIENCE,
    );
}

1;
