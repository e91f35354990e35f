package Bench::Nginx;

# An nginx that is measured.

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter qw(import);
use File::Basename qw(dirname);
use IO::Socket::INET;
use POSIX qw(:sys_wait_h);
use Time::HiRes qw(sleep);

use Bench::Process;

our @EXPORT = qw($root $module nginx workers get);

our $root = abs_path(dirname(__FILE__) . '/../../../..');
our $module = "$root/build/ngx_http_llm_module.so";


# {name, conf, port, module, cpu, workers, wrap, single}
#     -> {pid, worker, port, dir}

sub nginx {
    my (%o) = @_;

    my $dir = "$tmp/$o{name}";
    mkdir $dir;
    mkdir "$dir/temp";

    my $user = $> == 0 ? 'user root;' : '';
    my $workers = $o{workers} // 1;
    my $load = $o{module} ? "load_module $module;" : '';

    write_file("$dir/nginx.conf", <<"CONF");
$load
$user
worker_processes  $workers;
pid               $dir/nginx.pid;
error_log         $dir/error.log notice;

events {
    worker_connections 1024;
}

http {
    access_log               off;

    client_body_buffer_size  2m;
    client_max_body_size     4m;
    keepalive_requests       1000000000;
    keepalive_timeout        1h;

    client_body_temp_path    $dir/temp/body;
    proxy_temp_path          $dir/temp/proxy;
    fastcgi_temp_path        $dir/temp/fastcgi;
    uwsgi_temp_path          $dir/temp/uwsgi;
    scgi_temp_path           $dir/temp/scgi;

$o{conf}
}
CONF

    my $single = $o{single} ? ' master_process off;' : '';

    my $pid = start("$dir/out", on($o{cpu} // '', @{ $o{wrap} // [] },
        'nginx', '-p', $dir, '-c', "$dir/nginx.conf",
        '-e', "$dir/error.log", '-g', "daemon off;$single"));

    for (1 .. 1200) {
        if (IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                PeerPort => $o{port}))
        {
            my $worker = $o{single} ? $pid : (workers($pid))[0];

            return { pid => $pid, worker => $worker, port => $o{port},
                     dir => $dir };
        }

        last if waitpid($pid, WNOHANG) == $pid;
        sleep 0.05;
    }

    die "nginx does not start:\n", read_file("$dir/out"),
        read_file("$dir/error.log");
}

sub workers {
    my ($pid) = @_;

    return grep { read_file("/proc/$_/stat") =~ /\) \S $pid /
                  && read_file("/proc/$_/cmdline") =~ /worker/ }
           map { m,/(\d+)$, } glob '/proc/[0-9]*';
}

sub get {
    my ($port, $path) = @_;

    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
        PeerPort => $port) or die "connect: $!\n";

    print $socket "GET $path HTTP/1.0\r\n\r\n";
    local $/;

    return scalar <$socket>;
}

1;
