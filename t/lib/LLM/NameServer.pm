package LLM::NameServer;

=head1 NAME

LLM::NameServer - a made-up DNS server that does what a test tells it to

=head1 SYNOPSIS

    use LLM::NameServer;

    my $dns = LLM::NameServer->new;
    $dns->address;                       # 127.0.0.1:PORT, for "resolver"
    $dns->say('api.test' => { a => ['127.0.0.1'], ttl => 1 });
    ...
    $dns->say('api.test' => { rcode => 'SERVFAIL' });
    $dns->wait_queries('api.test', 3);

It answers over UDP and TCP.

=head1 METHODS

=over

=item new([listen => ADDRESS, port => NUMBER])

=item address, port, name

=item say(NAME => ANSWER, ...)

What it answers from now on.  A name that it does not know does not exist.
An answer is a hash of:

    a => ['127.0.0.1'], aaaa => ['::1']
    ttl => 1                    of all records
    cname => 'other.test'       a record in front of the others
    rcode => 'SERVFAIL'         or a number
    delay => SECONDS
    silent => 1                 no answer at all
    truncate => 1               over UDP: an empty answer with TC
    bytes => BYTES              that, behind the id of the query
    raw => BYTES, count => N    these for records, said to be N; 1
    id => N                     is added to the id
    question => 'other.test'    as if it was asked for that
    swap => 1                   A where AAAA was asked for, and vice versa
    only => 'a'                 the others of these for this type alone: the
                                other type has no records

=item queries([NAME])

What was asked so far: { name, type, over => 'udp' or 'tcp', time }.

=item wait_queries(NAME, N, [SECONDS])

Until that many more than now have come.

=item leave, come_back

Its ports are closed, and open again.

=item stop

=back

=cut

use strict;
use warnings;

use Carp;
use IO::Handle;
use IO::Select;
use LLM::Port;
use LLM::Provider::Message qw(read_message write_message);
use POSIX ();
use Socket qw(
    AF_INET AF_INET6 AF_UNIX PF_UNSPEC SOCK_DGRAM SOCK_STREAM SOL_SOCKET
    SO_REUSEADDR inet_pton
);
use Time::HiRes qw(time sleep);

use constant POLL => 0.01;

my %RCODE = (
    NOERROR => 0, FORMERR => 1, SERVFAIL => 2, NXDOMAIN => 3, NOTIMP => 4,
    REFUSED => 5,
);
my %TYPE = (1 => 'a', 5 => 'cname', 28 => 'aaaa');

sub new {
    my ($class, %option) = @_;

    my $self = bless { owner => $$ }, $class;
    $self->_bind($option{listen} // '127.0.0.1', $option{port});
    $self->_start;
    return $self;
}

sub port    { $_[0]{port}->number }
sub address { $_[0]{port}->authority }
sub name    { $_[0]{port}->address }

sub say {
    my ($self, %answers) = @_;

    $self->_ask(say => \%answers);
    return $self;
}

sub queries {
    my ($self, $name) = @_;

    return grep { !defined $name || $_->{name} eq $name }
        $self->_ask('queries');
}

sub wait_queries {
    my ($self, $name, $count, $patience) = @_;

    my $before   = $self->queries($name);
    my $deadline = time + ($patience // 20);
    until ($self->queries($name) >= $before + $count) {
        return 0 if time > $deadline;
        sleep POLL;
    }
    return 1;
}

sub leave     { $_[0]->_ask('leave');     $_[0] }
sub come_back { $_[0]->_ask('come_back'); $_[0] }

sub stop {
    my $self = shift;

    my $pid = delete $self->{pid} or return;
    return if $self->{owner} != $$;

    # who was forked after it holds the control as well, so that closing it
    # here may be no end of it
    local ($?, $!, $@);
    kill TERM => $pid;
    waitpid $pid, 0;
    return;
}

sub DESTROY { $_[0]->stop }

# a port that is free for UDP as well

sub _bind {
    my ($self, $address, $number) = @_;

    for (1 .. 50) {
        $self->{port} = LLM::Port->new($address, $number);
        return if eval { $self->{udp} = $self->_udp };
    }
    croak "no port at $address: $@";
}

sub _udp {
    my $self = shift;

    socket my $socket, $self->{port}->family, SOCK_DGRAM, 0
        or die "socket: $!\n";
    bind $socket, $self->{port}->sockaddr or die "bind: $!\n";
    return $socket;
}

sub _start {
    my $self = shift;

    socketpair my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC
        or croak "socketpair: $!";

    defined(my $pid = fork) or croak "fork: $!";
    if (!$pid) {
        $SIG{PIPE} = 'IGNORE';
        $SIG{$_} = 'DEFAULT' for qw(TERM INT HUP __DIE__ __WARN__);
        close $ours;
        eval { $self->_serve($theirs); 1 }
            or print STDERR "name server: $@";
        POSIX::_exit(0);
    }

    close $theirs;
    close delete $self->{udp};
    @$self{qw(pid control)} = ($pid, $ours);
    $self->queries;
}

sub _ask {
    my ($self, @message) = @_;

    local $SIG{PIPE} = 'IGNORE';
    write_message($self->{control}, \@message);
    my $reply = read_message($self->{control})
        or croak 'the name server has died';
    return @$reply;
}

# the server

sub _serve {
    my ($self, $control) = @_;

    @$self{qw(answers queries delayed tcp)} = ({}, [], [], {});
    $self->{listener} = $self->{port}->listen(64);

    while (1) {
        my @late = sort { $a->[0] <=> $b->[0] } @{ $self->{delayed} };
        my $wait = @late ? $late[0][0] - time : 10;
        my @sockets = grep { defined } $control, @$self{qw(udp listener)},
            map { $_->{socket} } values %{ $self->{tcp} };

        for my $socket (IO::Select->new(@sockets)
            ->can_read($wait > 0 ? $wait : 0))
        {
            if ($socket == $control) {
                my $message = read_message($control) or return;
                write_message($control, [ $self->_obey(@$message) ]);
            } elsif ($self->{udp} && $socket == $self->{udp}) {
                $self->_read_udp;
            } elsif ($self->{listener} && $socket == $self->{listener}) {
                accept my $client, $socket or next;
                $self->{tcp}{ fileno $client }
                    = { socket => $client, in => '' };
            } else {
                $self->_read_tcp($self->{tcp}{ fileno $socket });
            }
        }

        my @due = grep { $_->[0] <= time } @{ $self->{delayed} };
        @{ $self->{delayed} } = grep { $_->[0] > time } @{ $self->{delayed} };
        $_->[1]->() for @due;
    }
}

sub _obey {
    my ($self, $what, @more) = @_;

    if ($what eq 'say') {
        my %answers = %{ $more[0] };
        $self->{answers}{$_} = $answers{$_} for keys %answers;
    } elsif ($what eq 'queries') {
        return @{ $self->{queries} };
    } elsif ($what eq 'leave') {
        close delete $self->{$_} for qw(udp listener);
        close $_->{socket} for values %{ $self->{tcp} };
        $self->{tcp} = {};
    } elsif ($what eq 'come_back') {
        $self->{udp}      = $self->_udp;
        $self->{listener} = $self->{port}->listen(64);
    }
    return;
}

sub _read_udp {
    my $self = shift;

    my $from = recv $self->{udp}, my $query, 65535, 0;
    defined $from or return;
    $self->_answer($query, 'udp', sub {
        send $self->{udp}, $_[0], 0, $from if $self->{udp};
    });
}

sub _read_tcp {
    my ($self, $client) = @_;

    my $fd = fileno $client->{socket};
    if (!sysread $client->{socket}, $client->{in}, 65535,
        length $client->{in})
    {
        close $client->{socket};
        delete $self->{tcp}{$fd};
        return;
    }

    while (length $client->{in} >= 2) {
        my $size = unpack 'n', $client->{in};
        last if length $client->{in} < 2 + $size;
        my $query = substr $client->{in}, 2, $size;
        substr $client->{in}, 0, 2 + $size, '';
        $self->_answer($query, 'tcp', sub {
            syswrite $client->{socket}, pack 'n/a*', $_[0];
        });
    }
}

sub _answer {
    my ($self, $query, $over, $send) = @_;

    my ($id, @labels) = unpack 'n x10', $query;
    my $at = 12;
    while (my $len = ord substr $query, $at, 1) {
        push @labels, substr $query, $at + 1, $len;
        $at += 1 + $len;
    }
    my $type = unpack 'n', substr $query, $at + 1, 2;
    my $name = lc join '.', @labels;

    push @{ $self->{queries} }, {
        name => $name,
        type => $TYPE{$type} // $type,
        over => $over,
        time => time,
    };

    my $answer = $self->{answers}{$name} // { rcode => 'NXDOMAIN' };
    return if $answer->{silent};

    my $bytes = _message($id, $name, $type, $answer, $over);
    return $send->($bytes) if !$answer->{delay};
    push @{ $self->{delayed} },
        [ time + $answer->{delay}, sub { $send->($bytes) } ];
}

sub _message {
    my ($id, $name, $type, $answer, $over) = @_;

    return pack('n', $id) . $answer->{bytes} if defined $answer->{bytes};

    my $kind = $TYPE{$type} // '';
    my $applies = !$answer->{only} || $answer->{only} eq $kind;
    $answer = {} if !$applies;

    my $rcode = $answer->{rcode} // 0;
    $rcode = $RCODE{$rcode} // $rcode;

    my $record = $type;
    $record = $type == 1 ? 28 : 1 if $answer->{swap};

    return pack('n6', $id, 0x8180, 1, $answer->{count} // 1, 0, 0)
        . _name($name) . pack('n n', $type, 1) . $answer->{raw}
        if defined $answer->{raw};

    my $is_short = $answer->{truncate} && $over eq 'udp';
    my @records;
    my $ttl = $answer->{ttl} // 60;
    if (!$rcode && !$is_short) {
        push @records, pack 'n n n N n/a*', 0xc00c, 5, 1, $ttl,
            _name($answer->{cname})
            if defined $answer->{cname};
        my $family = $record == 1 ? AF_INET : AF_INET6;
        push @records, map {
            pack 'n n n N n/a*', 0xc00c, $record, 1, $ttl,
                inet_pton($family, $_)
        } @{ $answer->{ $TYPE{$record} // '' } // [] };
    }

    return pack('n n n n n n',
        $id + ($answer->{id} // 0) & 0xffff,
        0x8180 | ($is_short ? 0x0200 : 0) | $rcode,
        1, scalar @records, 0, 0)
        . _name($answer->{question} // $name)
        . pack('n n', $type, 1)
        . join '', @records;
}

sub _name {
    return join('', map { pack 'C/a*', $_ } split /\./, $_[0]) . "\0";
}

1;
