# nginx in a test starts, reloads and ends as the test wants it, and nothing
# that it complains about is overlooked.  The proxy here is the stock one.

use strict;
use warnings;

use File::Path qw(remove_tree);
use FindBin;
use POSIX ();
use lib "$FindBin::Bin/lib";

use LLM::HTTP;
use LLM::NameServer;
use LLM::Nginx;
use LLM::Provider;
use Test2::API qw(intercept);
use Test::More;

my $CHAT   = '/v1/chat/completions';
my $ASK    = { model => 'gpt-4.1' };
my $STREAM = { model => 'gpt-4.1', stream => \1 };

my $PROXY = <<'CONF';
    server {
        listen 127.0.0.1:{{port}};
        add_header x-generation {{generation}};
        location / {
            proxy_pass {{openai}};
            proxy_buffering off;
        }
        location = /pid { return 200 $pid; }
    }
CONF

my $p = LLM::Provider->new(name => 'openai');

subtest 'nginx stands before a provider' => sub {
    my $nginx = nginx();
    my $http  = $nginx->client;

    is $http->post($CHAT, $ASK)->json->{model}, 'gpt-4.1';
    ok $nginx->wait_access(qr/"POST $CHAT HTTP/), 'it is in the access log';
    is $nginx->workers, 1;

    $p->behave({ stall => '1 token' });
    $http->start(POST => $CHAT, json => $STREAM);
    ok $http->read_until(qr/token1/), 'a stream is seen as it comes';
    $http->close;

    $p->behave('reset');
    is $http->post($CHAT, $ASK)->status, 502;
    ok $nginx->wait_log(qr/reset by peer/);
    $p->behave('ok');
    $nginx->done;
};

subtest 'HTTP/2' => sub {
    plan skip_all => 'no curl that knows HTTP/2' unless LLM::HTTP->has_h2;

    my $nginx = nginx(listen => 'http2');
    my $r = LLM::HTTP->h2($nginx->url . $CHAT, json => $ASK);
    is $r->version, 2;
    is $r->status,  200;
    is $r->header('x-generation'), 1;
    is $r->json->{model}, 'gpt-4.1';
    $nginx->done;
};

subtest 'a test gets ports that stay its own' => sub {
    my $one = nginx();
    my $two = nginx();
    isnt $one->port, $two->port;
    is $one->port, $one->port('');
    isnt $one->port, $one->port('admin');

    my $http = $one->client;
    $one->quit;
    ok !eval { $http->get('/') }, 'refused while nginx does not run';
    $one->start;
    is $http->get('/v1/models')->status, 200;
    $_->done for $one, $two;
};

subtest 'a reload brings new workers' => sub {
    my $nginx = nginx(workers => 2);
    my @old   = $nginx->workers;
    is scalar @old, 2;

    configure($nginx, generation => 2);
    $nginx->reload;
    my %is_old = map { $_ => 1 } @old;
    my @new = $nginx->workers;
    is scalar @new, 2;
    is scalar(grep { $is_old{$_} } @new), 0;
    is_deeply [ grep { LLM::Nginx::_is_alive($_) } @old ], [],
        'the old ones are gone';
    is $nginx->client->get('/v1/models')->header('x-generation'), 2;
    $nginx->done;
};

subtest 'a reload leaves a stream in peace' => sub {
    my $nginx = nginx();
    my ($old) = $nginx->workers;
    my $http  = $nginx->client;

    $p->behave({ tokens => 1000, pace => 0.01, stall => '3 tokens' });
    $http->start(POST => $CHAT, json => $STREAM);
    ok $http->read_until(qr/token3/);

    configure($nginx, generation => 2);
    $nginx->reload(leave_old => 1);
    ok kill(0 => $old), 'its worker is there';
    isnt +($nginx->workers)[0], $old, 'and takes no more connections';
    is $nginx->client->get('/pid')->body,
        ($nginx->workers)[0];

    $http->close;
    ok $p->wait_outcome('gone'), 'the provider learns that the client left';
    $p->behave('ok');
    $nginx->done;
};

subtest 'a wrong configuration is told, and changes nothing' => sub {
    my $nginx = nginx();
    is_deeply [ ($nginx->test_conf)[0] ], [1];

    $nginx->write_conf(http => 'nonsense on;');
    my ($ok, $output) = $nginx->test_conf;
    ok !$ok;
    like $output, qr/\[emerg\] unknown directive "nonsense"/;

    like $nginx->reload_fails, qr/unknown directive "nonsense"/;
    is $nginx->client->get('/v1/models')->status, 200;

    $nginx->quit;
    $nginx->write_conf(http => 'nothing on;');
    ok !eval { $nginx->start; 1 };
    like $@, qr/unknown directive "nothing".* at \Q$0\E/s;
    $nginx->done;

    ok !eval { $nginx->write_conf(http => '{{what}}') };
    like $@, qr/nothing to put in for \{\{what\}\} at \Q$0\E/;
};

subtest 'a worker that was killed comes back' => sub {
    my $nginx = nginx();
    my ($worker) = $nginx->workers;
    $nginx->expect_killed($worker);
    kill KILL => $worker;
    ok $nginx->wait_log(qr/process $worker exited on signal 9/);
    is $nginx->client->get('/v1/models')->status, 200;
    isnt +($nginx->workers)[0], $worker;
    $nginx->done;
};

subtest 'what nginx complains about fails the test' => sub {
    my $nginx = nginx();
    is_deeply [ verdicts($nginx) ], [ 1, 1 ], 'nothing';

    $nginx = nginx();
    kill KILL => $nginx->workers;
    $nginx->wait_log(qr/exited on signal/) or fail 'no signal';
    is_deeply [ verdicts($nginx) ], [ 0, 1 ], 'a worker has died';

    $nginx = nginx();
    my @workers = $nginx->workers;
    kill KILL => $nginx->master, @workers;
    is_deeply [ verdicts($nginx) ], [ 0, 1 ], 'all of it has';

    $nginx = nginx();
    $nginx->file('reports/sanitizer.1', "ERROR: AddressSanitizer\n");
    is_deeply [ verdicts($nginx) ], [ 1, 0 ], 'a memory checker reported';
};

subtest 'it ends' => sub {
    my $nginx  = nginx();
    my $master = $nginx->master;
    my $http   = $nginx->client;
    is $http->get('/v1/models')->status, 200;
    $nginx->stop;
    ok !kill(0 => $master);
    is $nginx->master, undef;
    is_deeply [ $nginx->workers ], [];
    $nginx->done;

    my $prefix = $nginx->prefix;
    undef $nginx;
    ok !-e $prefix, 'and leaves nothing behind';
};

subtest 'it does not survive a test that is killed' => sub {
    plan skip_all => 'no setpriv' unless -x '/usr/bin/setpriv';

    pipe my $reader, my $writer or die "pipe: $!";
    my $test = fork // die "fork: $!";
    if (!$test) {
        my $nginx = nginx();
        syswrite $writer, $nginx->url . ' ' . $nginx->prefix . "\n";
        sleep 60;
        POSIX::_exit(0);
    }

    my ($url, $prefix) = split ' ', <$reader>;
    my $is_there = sub { eval { LLM::HTTP->new($url)->get('/pid')->status } };
    is $is_there->(), 200;
    kill KILL => $test;
    waitpid $test, 0;
    ok $p->wait_for(sub { !$is_there->() });
    remove_tree($prefix);
};

subtest 'a server ends, whoever was started after it' => sub {
    my $dns   = LLM::NameServer->new;
    my $later = LLM::Provider->new(name => 'later');
    my $pid   = $dns->{pid};
    local $SIG{ALRM} = sub { kill KILL => $pid };
    alarm 20;
    $dns->stop;
    ok alarm(0), 'by itself';
    ok $later->url, 'before the other';
};

subtest 'it may be one process' => sub {
    my $nginx = nginx(master => 0);
    is $nginx->client->get('/pid')->body, $nginx->master;
    is_deeply [ $nginx->workers ], [ $nginx->master ];
    ok !$nginx->has_master;
    ok !eval { $nginx->reload };
    $nginx->done;
};

subtest 'it may be replaced while it runs' => sub {
    my $nginx = nginx(daemon => 1);
    my $old   = $nginx->master;
    is $nginx->client->get('/v1/models')->status, 200;

    $nginx->upgrade;
    isnt $nginx->master, $old;
    is $nginx->client->get('/pid')->body,
        ($nginx->workers)[0];
    $nginx->done;
};

done_testing;

sub nginx {
    my %option = @_;

    my $listen = delete $option{listen} // '';
    my $nginx  = LLM::Nginx->new(module => undef, %option);
    configure($nginx, listen => $listen);
    return $nginx->start;
}

sub configure {
    my ($nginx, %with) = @_;

    my $conf = $PROXY;
    $conf =~ s/(listen .*);/$1 $with{listen};/ if $with{listen};
    $nginx->write_conf(
        http => $conf,
        with => { openai => $p->url, generation => 1, %with },
    );
}

# how the assertions at the end of a test come out

sub verdicts {
    my $nginx = shift;

    my $events = intercept { $nginx->done };
    return map { $_->pass ? 1 : 0 }
        grep { $_->isa('Test2::Event::Ok') } @$events;
}
