package Scene;

# A gateway and a crowd of callers, while it is looked at what must hold.
# Round and Soak are scenes.

use strict;
use warnings;

use Time::HiRes qw(sleep time);

use LLM::Chaos;
use LLM::Crowd;
use LLM::Gateway;
use LLM::Oracle;
use LLM::TLS;

use constant {
    TICK     => 0.05,
    PATIENCE => 40,         # a name that was not found is asked for again
};

my ($crowd, $tls);

sub new {
    my ($class, $seed, %option) = @_;

    $tls   //= LLM::TLS->new('127.0.0.1');
    $crowd //= LLM::Crowd->new(tls => $tls);
    $crowd->providers;
    $crowd->forget;

    return bless {
        seed   => $seed,
        chaos  => LLM::Chaos->new($seed),
        crowd  => $crowd,
        ca     => $tls->ca,
        status => {},
        tally  => {},
        wrong  => [],
        %option,
    }, $class;
}

# makes calls; meanwhile looks at the status, and something happens now and
# then

sub converse {
    my ($self, $until, $happen, @ids) = @_;

    my $r = $self->{random} //= $self->{chaos}->random('weather');
    $crowd->send($self->{gw}, $self->{chaos}, @ids);

    while (!$crowd->is_back) {
        return $self->complain('the callers do not come back')
            if time > $until;
        $self->glance;
        sleep TICK;

        $self->{next} //= time + $r->seconds(0.05, 1);
        if (time > $self->{next}) {
            $happen->($r);
            delete $self->{next};
        }
    }
    return;
}

# whoever asks a worker that is killed asks again

sub status {
    my $self = shift;

    return eval { $self->{gw}->status } // $self->{gw}->status;
}

sub glance {
    my $self = shift;

    my $status = $self->status;
    $self->complain(LLM::Oracle->glance($status, $self->{status}));
    $self->{status} = $status;
}

# nothing is in flight any more

sub rest {
    my $self = shift;

    my $gw = $self->{gw};
    my @wrong;
    $gw->wait_for(sub {
        !(@wrong = LLM::Oracle->rest($self->status));
    }, PATIENCE) or $self->complain(@wrong);

    $gw->wait_for(sub {
        LLM::Oracle->tally($self->{tally}, $self->new_lines);
        !(@wrong = LLM::Oracle->log($self->status, $self->{tally}));
    }, PATIENCE) or $self->complain(@wrong);
}

# what the access log has that was not looked at

sub new_lines {
    my $self = shift;

    my $path = $self->{gw}->nginx->prefix . '/logs/access.log';
    open my $file, '<:raw', $path or return;
    seek $file, $self->{read} // 0, 0;

    my @lines;
    while (my $line = <$file>) {
        last if $line !~ /\n\z/;
        $self->{read} = tell $file;
        push @lines, { $line =~ /(\w+)=(\S*)/g };
    }
    return @lines;
}

# an operator says something

sub order {
    my ($self, $r) = @_;

    my $client = $self->{gw}->nginx->client;
    $self->complain(LLM::Oracle->order(
        $client->request($self->{chaos}->order($r, @{ $self->{names} }))));
}

# and takes it back

sub let_be {
    my $self = shift;

    my $client = $self->{gw}->nginx->client;
    for my $name (@{ $self->{names} }) {
        my $status = $client->post("/llm/providers/$name",
            { action => 'auto' }, close => 1)->status;
        $self->complain("no word may be taken back: $status")
            if $status != 200;
    }
}

# healthy providers are all in use again soon

sub recover {
    my $self = shift;

    my $gw = $self->{gw};
    my $names = $self->{names};
    my @open;
    $gw->wait_for(sub {
        my $n = ++$self->{recoveries};
        $crowd->send($gw, $self->{chaos}, map { "$_-$n" } @$names);
        sleep TICK until $crowd->is_back;
        return !(@open = grep { _should_close($_) }
            @{ $self->status->{providers} });
    }, PATIENCE) or $self->complain(map {
        "$_->{name} stays $_->{state}, $_->{admin}, $_->{reason}, "
            . "$_->{last_error}, $_->{time_until_retry} s left" } @open);
}

sub _should_close {
    my $p = shift;

    return $p->{state} ne 'closed' && $p->{time_until_retry} < 5
        && !$p->{throttled_for}
        && !grep { $_->{used} >= 0.8 * $_->{limit} }
            values %{ $p->{limits} // {} };
}

sub end {
    my $self = shift;

    my $nginx = $self->{gw}->nginx;
    my @workers = $nginx->workers;
    my ($alerts, $reports) = $nginx->retire;
    $self->complain(@$alerts, $reports eq '' ? () : $reports,
        map { "process $_ is left" } grep { kill 0 => $_ } @workers);
}

sub complain {
    my ($self, @what) = @_;

    push @{ $self->{wrong} }, @what;
}

1;
